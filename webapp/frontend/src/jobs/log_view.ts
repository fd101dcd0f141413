/** The tail of a job's log. Follows the end unless its reader has scrolled away from it. */

import { h } from "../shared/dom";
import type { LogLine } from "./protocol";

const MAX_LINES = 2_000; // as many as the server keeps

export class LogView {
  cursor = "0";

  constructor(private element: HTMLElement) {}

  add(lines: LogLine[]): void {
    const last = lines.at(-1);
    if (!last) return;
    const { element } = this;
    const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 24;
    element.append(
      ...lines
        .filter(({ id }) => isAfter(id, this.cursor))
        .map(({ time_s, line }) =>
          h(
            "span",
            { class: "line" },
            h("time", {}, new Date(1000 * time_s).toLocaleTimeString("en-GB")),
            ` ${line}\n`,
          ),
        ),
    );
    this.cursor = last.id;
    while (element.childElementCount > MAX_LINES) element.firstElementChild?.remove();
    if (atEnd) element.scrollTop = element.scrollHeight;
  }
}

/** Whether a stream id, `<milliseconds>-<number>`, comes after another. */
export function isAfter(id: string, than: string): boolean {
  const [a = 0, b = 0] = id.split("-").map(Number);
  const [x = 0, y = 0] = than.split("-").map(Number);
  return a > x || (a === x && b > y);
}
