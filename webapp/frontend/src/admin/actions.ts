/** What buttons do: they ask first where that cannot be undone, and say what went wrong. */

import { confirmDialog } from "../shared/dialogs";
import { byId, setText } from "../shared/dom";
import { ApiError } from "../shared/http";

export interface Question {
  title: string;
  text: string;
  yes: string;
}

export interface Action<Row> {
  /** Whether it can be done to this row; without it, to every row. */
  applies?: (row: Row) => boolean;
  verb: (row: Row) => string;
  /** What the verb is done to. */
  object: (row: Row) => string;
  /** Does it; answers what a screen reader hears. */
  call: (row: Row) => Promise<string>;
  /** Asked before; undefined where nothing need be asked. */
  question?: (row: Row) => Question | undefined;
}

export class Actions {
  /** `changed`: something was changed, ask at once. */
  constructor(private changed: () => void) {}

  async press<Row>(button: HTMLButtonElement, { call, question }: Action<Row>, row: Row): Promise<void> {
    const asked = question?.(row);
    if (asked && !(await confirmDialog(asked.title, asked.text, asked.yes))) return;
    button.disabled = true;
    await this.run(() => call(row));
    button.disabled = false;
    if (document.activeElement === document.body) button.focus(); // it lost the focus when it was disabled
  }

  /** Runs `call` and shows its error. False when it failed. */
  async run(call: () => Promise<string>): Promise<boolean> {
    try {
      setText(byId("status"), await call());
      showProblem("");
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      showProblem(error.message);
      return false;
    } finally {
      this.changed();
    }
  }
}

function showProblem(message: string): void {
  byId("problem").hidden = !message;
  setText(byId("problem"), message);
  if (message) byId("problem").scrollIntoView({ block: "nearest" });
}
