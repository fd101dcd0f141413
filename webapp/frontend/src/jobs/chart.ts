/**
 * A line chart over training steps, drawn by uPlot. The pointer or the arrow keys move a cursor that tells step and
 * values; to a screen reader the chart is a slider whose value is that sentence.
 */

import uPlot from "uplot";
import { h } from "../shared/dom";
import { onThemeChange } from "../shared/theme";
import { columns, type Mark, type Point, rangeOf, STEP_INCREMENTS, smoothedCurve, tickLabels } from "./chart_data";

/** `smooth`: the curve is drawn smoothed over its own values; `dots`: each value is a dot. */
export interface Curve {
  name: string;
  kind: "line" | "smooth" | "dots";
}

export interface ChartOptions {
  label: string;
  height: number;
  curves: Curve[];
  value: (y: number) => string;
  fromZero?: boolean;
}

/** `points`: of each curve, in the order of the options. `until`: the last step of the axis. */
export interface ChartData {
  points: Point[][];
  marks: Mark[];
  until: number;
}

type Line = { color: string; kind: "line" | "dots" | "raw" };

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", sans-serif';
const BESIDE_PX = 12;

export class Chart {
  readonly element: HTMLElement;
  private tip = h("div", { class: "chart-tip", "aria-hidden": "true", hidden: true });
  private probe = h("i", { hidden: true });
  private lines: Line[];
  private data: ChartData = { points: [], marks: [], until: 0 };
  private table: uPlot.AlignedData = [[]];
  private steps: number[] = [];
  private plot: uPlot | undefined;
  /** The step under the cursor. */
  private at: number | undefined;

  constructor(private options: ChartOptions) {
    this.lines = linesOf(options.curves);
    const named = { "aria-label": options.label, "aria-valuetext": "no value yet" };
    this.element = h("div", { class: "chart", role: "slider", tabindex: "0", ...named }, this.probe);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.element);
    onThemeChange(() => this.plot?.redraw(false));
  }

  show(data: ChartData): void {
    this.data = data;
    const smooth = data.points.filter((_, index) => this.options.curves[index]?.kind === "smooth").map(smoothedCurve);
    this.table = columns([...smooth, ...data.points], data.marks);
    this.steps = Array.from(this.table[0]);
    this.draw();
  }

  // ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A hidden chart has no width; it is drawn once it has one. */
  private draw(): void {
    const width = this.element.clientWidth;
    if (!width) return;
    if (!this.plot) {
      this.plot = new uPlot(this.plotOptions(width), this.table, this.element);
      this.plot.over.append(this.tip);
      return;
    }
    const { plot } = this;
    plot.batch(() => {
      plot.setSize({ width, height: this.options.height });
      plot.setData(this.table);
    });
  }

  private plotOptions(width: number): uPlot.Options {
    const { height, fromZero = false } = this.options;
    return {
      width,
      height,
      padding: [10, 18, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: false, range: (_, __, last) => [0, Math.max(this.data.until, last, 1)] },
        y: { range: (_, low, high) => rangeOf(low, high, fromZero) },
      },
      axes: [this.stepAxis(), this.valueAxis()],
      series: [{}, ...this.lines.map((line) => this.seriesOf(line))],
      cursor: this.cursorOptions(),
      hooks: { draw: [() => this.drawn()] },
    };
  }

  private stepAxis(): uPlot.Axis {
    return { ...this.axis(), grid: { show: false }, space: 90, incrs: STEP_INCREMENTS, size: 24, gap: 6 };
  }

  private valueAxis(): uPlot.Axis {
    const grid = { stroke: () => this.color("--line"), width: 1 };
    const size = (_: uPlot, labels: string[] | null) =>
      12 + 7.2 * Math.max(0, ...(labels ?? []).map(({ length }) => length));
    return { ...this.axis(), grid, space: Math.max(24, this.options.height / 7), size, gap: 8 };
  }

  private axis(): uPlot.Axis {
    const values = (_: uPlot, ticks: number[]) => tickLabels(ticks);
    return { stroke: () => this.color("--ink-soft"), font: FONT, ticks: { show: false }, values };
  }

  private seriesOf({ color, kind }: Line): uPlot.Series {
    const stroke = () => this.color(color);
    if (kind === "raw") return { stroke, width: 1, alpha: 0.35, points: { show: false } };
    const dot = { size: 8, width: 1.5, fill: stroke, stroke: () => this.color("--raised") };
    const show = (plot: uPlot, index: number) => kind === "dots" || isSingle(plot.data[index]);
    return { stroke, width: 2, points: { ...dot, show } };
  }

  /** uPlot places what we tell it to: it knows no fingers and no keys. The smoothed curves have no values to show. */
  private cursorOptions(): uPlot.Cursor {
    const show = (_: uPlot, index: number) =>
      (index > this.numSmooth ? h("div", { class: this.lines[index - 1]?.kind ?? "" }) : undefined) as HTMLElement;
    const points = { size: 11, fill: "", stroke: "", show }; // colored by the style sheet
    return { y: false, drag: { x: false, y: false }, points, dataIdx: (_, __, index) => index };
  }

  private get numSmooth(): number {
    return this.lines.length - this.options.curves.length;
  }

  /** A canvas knows no CSS variables: this is the value of `name` in the theme that is shown. */
  private color(name: string): string {
    this.probe.style.color = `var(${name})`;
    return getComputedStyle(this.probe).color;
  }

  private drawn(): void {
    const { plot } = this;
    if (!plot) return;
    const lines = this.data.marks.map(({ x }) => {
      const line = h("div", { class: "mark" });
      line.style.left = `${plot.valToPos(x, "x")}px`;
      return line;
    });
    plot.under.replaceChildren(...lines);
    this.element.setAttribute("aria-valuemin", String(this.steps[0] ?? 0));
    this.element.setAttribute("aria-valuemax", String(this.steps.at(-1) ?? 0));
    this.place(this.at);
  }

  // ── the cursor ──────────────────────────────────────────────────────────────────────────────────────────────────

  private listen(): void {
    const { element } = this;
    element.addEventListener("pointermove", (event) => this.follow(event));
    element.addEventListener("pointerdown", (event) => this.follow(event));
    element.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !element.matches(":focus-visible")) this.place(undefined); // a finger leaves what it tapped shown
    });
    element.addEventListener("blur", () => this.place(undefined));
    element.addEventListener("focus", () => {
      if (element.matches(":focus-visible")) this.place(this.at ?? this.steps.at(-1));
    });
    element.addEventListener("keydown", (event) => this.key(event));
  }

  private follow(event: PointerEvent): void {
    if (!this.plot) return;
    const left = event.clientX - this.plot.over.getBoundingClientRect().left;
    this.place(this.steps[this.plot.posToIdx(Math.max(0, left))]);
  }

  private key(event: KeyboardEvent): void {
    const last = this.steps.length - 1;
    const now = this.at === undefined ? last : this.steps.indexOf(this.at);
    const to = indexAfter(event.key, now, last);
    if (event.key === "Escape") this.place(undefined);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.place(this.steps[Math.max(0, Math.min(to, last))]);
  }

  private place(step: number | undefined): void {
    this.at = step;
    const told = this.tell(step ?? this.steps.at(-1));
    this.tip.hidden = step === undefined;
    const left = step === undefined ? -1 : (this.plot?.valToPos(step, "x") ?? -1);
    this.plot?.setCursor({ left, top: 0 });
    if (step !== undefined) this.showTip(told, left);
  }

  /** Says what is at a step, `["step 120", "training 1.23"]`; only on change, so that a screen reader hears it once. */
  private tell(step: number | undefined): string[] {
    if (step === undefined) return [];
    const index = this.steps.indexOf(step);
    const values = this.options.curves.flatMap(({ name }, curve) => {
      const value = this.table[1 + this.numSmooth + curve]?.[index];
      return typeof value === "number" ? [`${name} ${this.options.value(value)}`] : [];
    });
    const marks = this.data.marks.filter(({ x }) => x === step).map(({ text }) => text);
    const told = [`step ${step.toLocaleString("en")}`, ...values, ...marks];
    if (this.element.getAttribute("aria-valuetext") !== told.join(", ")) {
      this.element.setAttribute("aria-valuenow", String(step));
      this.element.setAttribute("aria-valuetext", told.join(", "));
    }
    return told;
  }

  private showTip([step = "", ...values]: string[], left: number): void {
    this.tip.replaceChildren(h("b", {}, step), ...values.map((line) => h("span", {}, line)));
    const { offsetWidth: width } = this.tip;
    const room = (this.plot?.over.clientWidth ?? 0) - width;
    const beside = left + BESIDE_PX > room ? left - BESIDE_PX - width : left + BESIDE_PX;
    this.tip.style.transform = `translateX(${Math.max(0, Math.min(beside, room))}px)`;
  }
}

/** What uPlot draws, in its order: smoothed curves first, so that dots lie above them; then each curve's own values. */
function linesOf(curves: Curve[]): Line[] {
  const smooth = curves.filter(({ kind }) => kind === "smooth").map((): Line => ({ color: "--accent", kind: "line" }));
  const own = curves.map(({ kind }): Line => {
    if (kind === "dots") return { color: "--evaluation", kind };
    return { color: "--accent", kind: kind === "smooth" ? "raw" : "line" };
  });
  return [...smooth, ...own];
}

function isSingle(values: ArrayLike<unknown> | undefined): boolean {
  return Array.from(values ?? []).filter((value) => typeof value === "number").length === 1;
}

/** Where a key moves the cursor; undefined: the key is none of ours. */
function indexAfter(key: string, now: number, last: number): number | undefined {
  const page = Math.max(1, Math.round(last / 10));
  const back = { ArrowLeft: now - 1, ArrowDown: now - 1, PageDown: now - page, Home: 0 };
  const on = { ArrowRight: now + 1, ArrowUp: now + 1, PageUp: now + page, End: last };
  return new Map(Object.entries({ ...back, ...on })).get(key);
}
