/** The steps of a job: how many records each kept and dropped, and why. */

import { count } from "../shared/amounts";
import { h, setText } from "../shared/dom";
import type { Step } from "./protocol";
import { plain, ranked, shares, total } from "./words";

const MAX_REASONS = 8;

export class StepsView {
  private rows = new Map<string, Row>();

  constructor(private list: HTMLElement) {}

  /** `ended`: nothing more will reach a step. */
  show(steps: Step[], ended: boolean): void {
    const most = Math.max(0, ...steps.map((step) => step.records_in));
    for (const step of steps) {
      let row = this.rows.get(step.label);
      if (!row) {
        row = new Row(step.label);
        this.rows.set(step.label, row);
        this.list.append(row.element);
      }
      row.show(step, most, ended);
    }
  }
}

class Row {
  private numbers = h("span", { class: "numbers" });
  private kept = h("span", { class: "kept" });
  private dropped = h("span", { class: "dropped" });
  private reasons = h("ul", { class: "reasons" });
  private drawn = "";
  readonly element: HTMLElement;

  constructor(label: string) {
    this.element = h(
      "li",
      { class: "step", "data-testid": "step", "data-step": label },
      h("div", { class: "step-line" }, h("span", { class: "step-name" }, plain(label)), this.numbers),
      h("div", { class: "step-bar", "aria-hidden": "true" }, this.kept, this.dropped),
      this.reasons,
    );
  }

  show(step: Step, most: number, ended: boolean): void {
    const { kept, dropped } = shares(step, most);
    this.kept.style.width = `${100 * kept}%`;
    this.dropped.style.width = `${100 * dropped}%`;
    this.element.classList.toggle("ahead", step.records_in === 0);
    setText(this.numbers, describe(step, ended));
    const key = JSON.stringify([step.rejected, step.cut, step.changed]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.reasons.replaceChildren(
      ...chips(step.rejected, "dropped", "record"),
      ...chips(step.cut, "cut", "turn"),
      ...chips(step.changed, "changed", ""),
    );
  }
}

function describe(step: Step, ended: boolean): string {
  if (step.records_in === 0) return ended ? "not reached" : "nothing yet";
  const dropped = total(step.rejected);
  const kept = `${step.records_out.toLocaleString("en")} kept`;
  return dropped ? `${kept}, ${dropped.toLocaleString("en")} dropped` : kept;
}

function chips(counts: Record<string, number>, kind: string, unit: string): HTMLElement[] {
  const all = ranked(counts).filter(([, number]) => number > 0);
  const made = all
    .slice(0, MAX_REASONS)
    .map(([name, number]) =>
      h(
        "li",
        { class: `chip ${kind}`, title: title(kind, number, unit) },
        h("span", { class: kind === "cut" ? "" : "visually-hidden" }, `${kind}: `),
        name,
        h("b", {}, number.toLocaleString("en")),
      ),
    );
  if (all.length > MAX_REASONS) made.push(h("li", { class: "chip" }, `${all.length - MAX_REASONS} more in the report`));
  return made;
}

function title(kind: string, number: number, unit: string): string {
  return unit ? `${count(number, unit)} ${kind}` : `${number.toLocaleString("en")} × changed`;
}
