/**
 * A line chart over training steps, drawn as SVG. The pointer or the arrow keys move a cursor that tells step and values;
 * to a screen reader the chart is a slider whose value is that sentence.
 */

import { h } from "../shared/dom";
import {
  type Axis,
  nearest,
  niceAxis,
  type Point,
  smoothed,
  smoothingOf,
  thinned,
  tickLabels,
  tightAxis,
} from "./scale";

export interface Series {
  name: string;
  points: Point[];
  kind: "line" | "dots";
  smooth?: boolean;
}

/** A vertical line at a step, such as where a run was resumed. */
export interface Mark {
  x: number;
  text: string;
}

export interface ChartData {
  series: Series[];
  marks: Mark[];
  until: number;
}

export interface ChartOptions {
  label: string;
  height: number;
  value: (y: number) => string;
  fromZero?: boolean;
  ticks?: number;
}

const SVG = "http://www.w3.org/2000/svg";
const TOP = 10;
const BOTTOM = 24;
const RIGHT = 14;

export class Chart {
  readonly element: HTMLElement;
  private svg = svg("svg", { "aria-hidden": "true" });
  private grid = svg("g", { class: "grid" });
  private lines = svg("g");
  private cursor = svg("g", { class: "cursor" });
  private tip = h("div", { class: "chart-tip", "aria-hidden": "true", hidden: true });
  private data: ChartData = { series: [], marks: [], until: 0 };
  private at: number | undefined;
  private frame = { left: 40, width: 300, x: tightAxis(0, 1, 2), y: niceAxis(0, 1, 2) };
  private drawn = "";

  constructor(private options: ChartOptions) {
    this.svg.append(this.grid, this.lines, this.cursor);
    this.element = h(
      "div",
      { class: "chart", role: "slider", tabindex: "0", "aria-label": options.label, "aria-valuetext": "no value yet" },
      this.tip,
    );
    this.element.prepend(this.svg);
    this.element.addEventListener("pointermove", (event) => this.follow(event));
    this.element.addEventListener("pointerdown", (event) => this.follow(event));
    this.element.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !this.element.matches(":focus-visible")) this.place(undefined); // a finger leaves what it tapped shown
    });
    this.element.addEventListener("blur", () => this.place(undefined));
    this.element.addEventListener(
      "focus",
      () => this.element.matches(":focus-visible") && this.place(this.at ?? this.main.length - 1),
    );
    this.element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  show(data: ChartData): void {
    this.data = data;
    this.draw();
  }

  private get main(): Point[] {
    return this.data.series[0]?.points ?? [];
  }

  // ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────

  private draw(): void {
    const width = this.element.clientWidth;
    if (!width) return;
    const { series, marks, until } = this.data;
    const key = JSON.stringify([
      width,
      until,
      marks,
      series.map(({ points }) => [points.length, points.at(-1)?.x, points.reduce((sum, { y }) => sum + y, 0)]),
    ]);
    if (key === this.drawn) return;
    this.drawn = key;
    const { height } = this.options;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("width", String(width));
    this.svg.setAttribute("height", String(height));
    this.measure(width);
    this.drawGrid();
    this.lines.replaceChildren(
      ...marks.map((mark) => this.markLine(mark)),
      ...series.flatMap((one) => this.curve(one)),
    );
    if (this.main.length) this.element.setAttribute("aria-valuemin", String(this.main[0]!.x));
    this.element.setAttribute("aria-valuemax", String(this.main.at(-1)?.x ?? 0));
    this.place(this.at);
  }

  private measure(width: number): void {
    const { series, until } = this.data;
    const values = series.flatMap(({ points }) => points.map(({ y }) => y));
    let [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    if (this.options.fromZero) [low, high] = [Math.min(0, low), Math.max(high, 0)];
    const y = niceAxis(low, high === low && this.options.fromZero ? low + 1 : high, this.options.ticks ?? 5);
    const left = 12 + 7.2 * Math.max(...tickLabels(y.ticks).map((label) => label.length));
    const last = Math.max(until, ...series.map(({ points }) => points.at(-1)?.x ?? 0), 1);
    this.frame = { left, width, x: tightAxis(0, last, Math.max(2, Math.floor((width - left) / 90))), y };
  }

  private drawGrid(): void {
    const { left, width, x, y } = this.frame;
    const base = this.options.height - BOTTOM;
    const rows = labelled(y).flatMap(([tick, label]) => [
      svg("line", { x1: left, x2: width - RIGHT, y1: this.py(tick), y2: this.py(tick) }),
      svg("text", { x: left - 8, y: this.py(tick), dy: "0.32em", "text-anchor": "end" }, label),
    ]);
    const columns = labelled(x).map(([tick, label]) =>
      svg(
        "text",
        {
          x: this.px(tick),
          y: base + 17,
          "text-anchor": tick === 0 ? "start" : this.px(tick) > width - 34 ? "end" : "middle",
        },
        label,
      ),
    );
    this.grid.replaceChildren(...rows, ...columns);
  }

  private curve({ points, kind, smooth }: Series): SVGElement[] {
    const index = this.data.series.findIndex((one) => one.points === points);
    const name = `series-${index}`;
    const dots = points.map(({ x, y }) =>
      svg("circle", { class: `dot-${name}`, cx: this.px(x), cy: this.py(y), r: 3.2 }),
    );
    if (kind === "dots") return [this.path(points, `line ${name}`), ...dots];
    if (points.length === 1) return dots;
    const weight = smooth ? smoothingOf(points.length) : 0;
    if (!weight) return [this.path(points, `line ${name}`)];
    return [this.path(points, `line raw ${name}`), this.path(smoothed(points, weight), `line ${name}`)];
  }

  private path(points: Point[], kind: string): SVGElement {
    const some = thinned(points, 2 * this.frame.width);
    return svg("path", {
      class: kind,
      d: some
        .map(({ x, y }, index) => `${index ? "L" : "M"}${this.px(x).toFixed(1)} ${this.py(y).toFixed(1)}`)
        .join(""),
    });
  }

  private markLine({ x }: Mark): SVGElement {
    return svg("line", { class: "mark", x1: this.px(x), x2: this.px(x), y1: TOP, y2: this.options.height - BOTTOM });
  }

  private px(x: number): number {
    const { left, width, x: axis } = this.frame;
    return left + ((x - axis.min) / (axis.max - axis.min)) * (width - left - RIGHT);
  }

  private py(y: number): number {
    const { y: axis } = this.frame;
    const base = this.options.height - BOTTOM;
    return base - ((y - axis.min) / (axis.max - axis.min)) * (base - TOP);
  }

  // ── the cursor ──────────────────────────────────────────────────────────────────────────────────────────────────

  private follow(event: PointerEvent): void {
    const { left, width, x } = this.frame;
    const inside = event.clientX - this.element.getBoundingClientRect().left;
    this.place(nearest(this.main, x.min + ((inside - left) / (width - left - RIGHT)) * (x.max - x.min)));
  }

  private key(event: KeyboardEvent): void {
    const last = this.main.length - 1;
    const now = this.at ?? last;
    const page = Math.max(1, Math.round(last / 10));
    const to = new Map([
      ["ArrowLeft", now - 1],
      ["ArrowDown", now - 1],
      ["ArrowRight", now + 1],
      ["ArrowUp", now + 1],
      ["PageDown", now - page],
      ["PageUp", now + page],
      ["Home", 0],
      ["End", last],
    ]).get(event.key);
    if (event.key === "Escape") this.place(undefined);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.place(Math.max(0, Math.min(to, last)));
  }

  private place(index: number | undefined): void {
    const point = index === undefined ? undefined : this.main[index];
    this.at = point ? index : undefined;
    this.tip.hidden = !point;
    this.cursor.replaceChildren();
    const told = this.told(point ?? this.main.at(-1));
    if (told.length) {
      this.element.setAttribute("aria-valuenow", String((point ?? this.main.at(-1))!.x));
      this.element.setAttribute("aria-valuetext", told.join(", "));
    }
    if (!point) return;
    const x = this.px(point.x);
    this.cursor.append(
      svg("line", { x1: x, x2: x, y1: TOP, y2: this.options.height - BOTTOM }),
      svg("circle", { cx: x, cy: this.py(point.y), r: 4 }),
    );
    this.showTip(told, x);
  }

  /** Step and values at a point: `["step 120", "training 1.23"]`; what is nearer to it than to any other point, too. */
  private told(point: Point | undefined): string[] {
    if (!point) return [];
    const step = this.data.series.flatMap(({ name, points }, index) => {
      const found = points[nearest(points, point.x)];
      return found && (index === 0 || nearest(this.main, found.x) === nearest(this.main, point.x))
        ? [`${name} ${this.options.value(found.y)}`]
        : [];
    });
    const marks = this.data.marks
      .filter(({ x }) => nearest(this.main, x) === nearest(this.main, point.x))
      .map(({ text }) => text);
    return [`step ${point.x.toLocaleString("en")}`, ...step, ...marks];
  }

  private showTip(told: string[], x: number): void {
    const [first, ...rest] = told;
    this.tip.replaceChildren(h("b", {}, first!), ...rest.map((line) => h("span", {}, line)));
    const room = this.frame.width - this.tip.offsetWidth - 4;
    const beside = x + 12 > room ? x - 12 - this.tip.offsetWidth : x + 12;
    this.tip.style.transform = `translate(${Math.max(4, Math.min(beside, room))}px, ${TOP}px)`;
  }
}

function labelled(axis: Axis): [number, string][] {
  const labels = tickLabels(axis.ticks);
  return axis.ticks.map((tick, index) => [tick, labels[index]!]);
}

function svg(name: string, attributes: Record<string, string | number> = {}, text = ""): SVGElement {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text) element.textContent = text;
  return element;
}
