/** What a model thought before its answer: folded, with how long it took. Screen readers hear it only where it is opened. */

import { h, setText } from "../shared/dom";
import { AnswerText } from "./answer_text";

export class ReasoningView {
  private words = h("summary", { "data-testid": "thinking" });
  private text = new AnswerText();
  readonly element = h(
    "details",
    { class: "reasoning", "aria-live": "off", "data-testid": "reasoning" },
    this.words,
    this.text.element,
  );
  private shown = { text: "", open: false, final: false };

  /** `opened` hears of the user's click alone. */
  constructor(opened: (open: boolean) => void) {
    this.element.addEventListener("toggle", () => {
      const { open } = this.element;
      if (open === this.shown.open) return;
      this.shown.open = open;
      this.draw();
      opened(open);
    });
  }

  update(text: string, words: string, open: boolean, final: boolean): void {
    this.element.hidden = text === "";
    setText(this.words, words);
    this.shown = { text, open, final };
    this.element.open = open;
    this.draw();
  }

  /** Folded text costs nothing. */
  private draw(): void {
    if (this.shown.open) this.text.update(this.shown.text, this.shown.final);
  }
}
