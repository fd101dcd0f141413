/** The recipe's text with line numbers, and where it is wrong. */

import { byId, h, setText } from "../shared/dom";

export class RecipeEditor {
  private area = byId<HTMLTextAreaElement>("recipe");
  private gutter = byId("gutter");
  private wrongLine = 0;

  constructor(edited: () => void) {
    this.area.addEventListener("input", () => {
      this.clear();
      this.draw();
      edited();
    });
    this.area.addEventListener("scroll", () => (this.gutter.scrollTop = this.area.scrollTop));
  }

  get text(): string {
    return this.area.value;
  }

  set text(value: string) {
    this.area.value = value;
    this.area.scrollTop = 0;
    this.clear();
    this.draw();
  }

  /** Show what is wrong, and at which line (from 1; 0: nowhere). */
  refuse(message: string, line: number): void {
    this.wrongLine = line;
    setText(byId("recipe-problem"), line ? `Line ${line}: ${message}` : message);
    this.area.setAttribute("aria-invalid", "true");
    this.draw();
    this.area.focus();
    if (line) this.select(line);
  }

  private clear(): void {
    this.wrongLine = 0;
    setText(byId("recipe-problem"), "");
    this.area.removeAttribute("aria-invalid");
  }

  private select(line: number): void {
    const [start, end] = rangeOf(this.area.value, line);
    this.area.setSelectionRange(start, end);
    const height = this.area.scrollHeight / Math.max(1, this.area.value.split("\n").length);
    this.area.scrollTop = Math.max(0, (line - 4) * height);
    this.gutter.scrollTop = this.area.scrollTop;
  }

  private draw(): void {
    const lines = this.area.value.split("\n").length;
    this.gutter.replaceChildren(
      ...Array.from({ length: lines }, (_, index) =>
        h("span", { class: index + 1 === this.wrongLine ? "wrong" : "" }, String(index + 1)),
      ),
    );
    this.gutter.scrollTop = this.area.scrollTop;
  }
}

/** Where a line (from 1) begins and ends in a text. */
export function rangeOf(text: string, line: number): [number, number] {
  let start = 0;
  for (let left = line - 1; left > 0; left -= 1) {
    const end = text.indexOf("\n", start);
    if (end < 0) break;
    start = end + 1;
  }
  const end = text.indexOf("\n", start);
  return [start, end < 0 ? text.length : end];
}
