/** The box where a question is written. Enter sends, Shift+Enter breaks the line, Escape stops the running answer. */

import { byId, setText } from "../shared/dom";

export interface ComposerActions {
  /** False when the text could not be sent: it stays in the box. */
  send(text: string): boolean;
  /** The text in the box has changed. */
  drafted(text: string): void;
  stop(): void;
}

export class Composer {
  private input = byId<HTMLTextAreaElement>("input");
  private sendButton = byId<HTMLButtonElement>("send");
  private stopButton = byId<HTMLButtonElement>("stop");
  private progress = byId("progress");
  private refusal = byId("refusal");
  private running = false;
  private blocked = false;

  constructor(private actions: ComposerActions) {
    byId<HTMLFormElement>("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.send();
    });
    this.input.addEventListener("input", () => {
      this.refuse("");
      this.fit();
      this.actions.drafted(this.input.value);
    });
    this.stopButton.onclick = () => this.stop();
    document.addEventListener("keydown", (event) => {
      if (
        event.key !== "Escape" ||
        event.isComposing ||
        event.defaultPrevented ||
        document.querySelector("dialog[open]")
      )
        return;
      if (this.running) this.stop();
    });
  }

  /** `blocked`: there is no model to send to. `characters`: how much of the running answer is here. */
  show(running: boolean, cancelling: boolean, blocked: boolean, characters: number): void {
    const hadFocus = document.activeElement === this.stopButton;
    this.running = running;
    this.blocked = blocked;
    this.sendButton.hidden = running;
    this.stopButton.hidden = !running;
    this.stopButton.disabled = cancelling;
    setText(this.progress, running && characters > 0 ? `${characters.toLocaleString("en")} characters` : "");
    if (hadFocus && !running) this.focus();
    this.enable();
  }

  /** Says why a message was not sent; empty takes it back. */
  refuse(why: string): void {
    this.refusal.hidden = !why;
    setText(this.refusal, why);
  }

  /** Puts a draft into the box. */
  write(text: string): void {
    if (this.input.value === text) return;
    this.input.value = text;
    this.refuse("");
    this.fit();
  }

  focus(): void {
    this.input.focus({ preventScroll: true });
  }

  private stop(): void {
    this.actions.stop();
    this.focus();
  }

  private send(): void {
    const text = this.input.value.trim();
    if (!text || this.running || this.blocked || !this.actions.send(text)) return;
    this.write("");
  }

  private enable(): void {
    this.sendButton.disabled = this.blocked || !this.input.value.trim();
  }

  /** The box grows with its text. */
  private fit(): void {
    this.enable();
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, 240)}px`;
  }
}
