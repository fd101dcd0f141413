/** Buttons that change something: they ask first where that cannot be undone, and say what went wrong. */

import { confirmDialog } from "../shared/dialogs";
import { byId, h, setText } from "../shared/dom";
import { ApiError } from "../shared/http";

export interface Question {
  title: string;
  text: string;
  yes: string;
}

export class Actions {
  /** `changed`: something was changed, ask at once. */
  constructor(private changed: () => void) {}

  /** A button. What `call` answers is told to screen readers. */
  button(word: string, label: () => string, call: () => Promise<string>, question?: () => Question): HTMLButtonElement {
    const button = h("button", { type: "button", class: "button small" }, word);
    button.onclick = async () => {
      const asked = question?.();
      if (asked && !(await confirmDialog(asked.title, asked.text, asked.yes))) return;
      button.disabled = true;
      await this.run(call);
      button.disabled = false;
    };
    button.setAttribute("aria-label", `${word} ${label()}`);
    return button;
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
}
