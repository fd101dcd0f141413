/** A message at the edge of the page that goes by itself, with at most one button. Screen readers hear it. */

import { byId, setText } from "../shared/dom";

const SHOWN_MS = 6_000;

export class Toast {
  private element = byId("toast");
  private words = byId("toast-words");
  private button = byId<HTMLButtonElement>("toast-button");
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    const pause = () => clearTimeout(this.timer);
    this.element.addEventListener("mouseenter", pause);
    this.element.addEventListener("focusin", pause);
    this.element.addEventListener("mouseleave", () => this.hideIn(SHOWN_MS));
    this.element.addEventListener("focusout", () => this.hideIn(SHOWN_MS));
  }

  /** `action`: what its button says and does. */
  show(words: string, action?: { label: string; run(): void }, shown_ms = SHOWN_MS): void {
    setText(this.words, words);
    this.button.hidden = !action;
    setText(this.button, action?.label ?? "");
    this.button.onclick = () => {
      this.hide();
      action?.run();
    };
    this.element.hidden = false;
    this.hideIn(shown_ms);
  }

  private hideIn(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.hide(), ms);
  }

  private hide(): void {
    clearTimeout(this.timer);
    this.element.hidden = true;
  }
}
