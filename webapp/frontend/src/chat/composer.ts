/**
 * The box where a question is written, and the texts attached to it. Enter sends, Shift+Enter breaks the line, Escape
 * stops the running answer.
 */

import { byId, setText } from "../shared/dom";
import { attachmentItems } from "./attachment_list";
import { type Attachment, freshName, LONG_PASTE_CHARS, NotText, readText, sizeOf } from "./attachments";
import type { Draft } from "./drafts";

export interface ComposerActions {
  /** False when it could not be sent: it stays. */
  send(draft: Draft): boolean;
  drafted(draft: Draft): void;
  stop(): void;
}

export class Composer {
  private form = byId<HTMLFormElement>("composer");
  private input = byId<HTMLTextAreaElement>("input");
  private sendButton = byId<HTMLButtonElement>("send");
  private stopButton = byId<HTMLButtonElement>("stop");
  private progress = byId("progress");
  private refusal = byId("refusal");
  private attachments: Attachment[] = [];
  private running = false;
  private blocked = false;

  /** `maxBytes`: of a file that is worth reading. */
  constructor(
    private actions: ComposerActions,
    private maxBytes: number,
  ) {
    this.form.addEventListener("submit", (event) => {
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
      this.drafted();
    });
    this.stopButton.onclick = () => this.stop();
    this.acceptTexts();
  }

  /** `blocked`: there is no model to send to. `characters`: how much of the running answer is here. */
  show(running: boolean, cancelling: boolean, blocked: boolean, characters: number): void {
    const hadFocus = document.activeElement === this.stopButton;
    this.running = running;
    this.blocked = blocked;
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
  write({ typed, attachments }: Draft): void {
    this.showAttachments(attachments);
    if (this.input.value === typed) return;
    this.input.value = typed;
    this.refuse("");
    this.fit();
  }

  focus(): void {
    this.input.focus({ preventScroll: true });
  }

  /** Whether an answer was there to stop. */
  stop(): boolean {
    if (!this.running) return false;
    this.actions.stop();
    this.focus();
    return true;
  }

  /** Whether the box had the focus. */
  leave(): boolean {
    const hadFocus = document.activeElement === this.input;
    this.input.blur();
    return hadFocus;
  }

  private send(): void {
    const draft = { typed: this.input.value.trim(), attachments: this.attachments };
    if (this.isEmpty || this.blocked || !this.actions.send(draft)) return;
    this.write({ typed: "", attachments: [] });
  }

  private get isEmpty(): boolean {
    return !this.input.value.trim() && this.attachments.length === 0;
  }

  private drafted(): void {
    this.actions.drafted({ typed: this.input.value, attachments: this.attachments });
  }

  /** While an answer runs, the next question may wait behind it. */
  private enable(): void {
    this.sendButton.disabled = this.blocked || this.isEmpty;
    this.sendButton.hidden = this.running && this.isEmpty;
    const label = this.running ? "Ask when this answer has ended" : "Send";
    this.sendButton.setAttribute("aria-label", label);
    this.sendButton.title = `${label} (Enter)`;
  }

  /** The box grows with its text. */
  private fit(): void {
    this.enable();
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, 240)}px`;
  }

  // ── attached texts ──────────────────────────────────────────────────────────────────────────────────────────────

  private acceptTexts(): void {
    const chooser = byId<HTMLInputElement>("attach-files");
    byId("attach").onclick = () => chooser.click();
    chooser.onchange = () => {
      void this.attachFiles(Array.from(chooser.files ?? []));
      chooser.value = "";
    };
    this.input.addEventListener("paste", (event) => this.onPaste(event));
    const hasFiles = ({ dataTransfer }: DragEvent) => dataTransfer?.types.includes("Files") ?? false;
    document.addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.form.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || this.form.classList.remove("over"));
    document.addEventListener("drop", (event) => {
      this.form.classList.remove("over");
      if (!hasFiles(event) || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      void this.attachFiles(Array.from(event.dataTransfer?.files ?? []));
    });
  }

  private onPaste(event: ClipboardEvent): void {
    const text = event.clipboardData?.getData("text/plain").replace(/\r\n?/g, "\n") ?? "";
    const files = Array.from(event.clipboardData?.files ?? []);
    if (text.length < LONG_PASTE_CHARS && (text || files.length === 0)) return;
    event.preventDefault();
    if (text) this.attach("Pasted text", text);
    else void this.attachFiles(files);
  }

  private async attachFiles(files: File[]): Promise<void> {
    this.refuse("");
    for (const file of files) {
      try {
        this.attach(file.name, await readText(file, this.maxBytes));
      } catch (error) {
        if (!(error instanceof NotText)) throw error;
        this.refuse(error.message);
      }
    }
  }

  private attach(name: string, text: string): void {
    const attachment = { name: freshName(name, this.attachments), text };
    this.change([...this.attachments, attachment]);
    setText(byId("status"), `Attached ${attachment.name}, ${sizeOf(attachment)}`);
  }

  private change(attachments: Attachment[]): void {
    this.refuse("");
    this.showAttachments(attachments);
    this.drafted();
    this.focus();
  }

  private showAttachments(attachments: Attachment[]): void {
    this.attachments = attachments;
    const without = (gone: Attachment) => attachments.filter((one) => one !== gone);
    const list = byId("attachments");
    list.hidden = attachments.length === 0;
    list.replaceChildren(
      ...attachmentItems(attachments, {
        remove: (attachment) => this.change(without(attachment)),
        insert: (attachment) => {
          this.input.value = [this.input.value, attachment.text].filter(Boolean).join("\n\n");
          this.fit();
          this.change(without(attachment));
        },
      }),
    );
    this.enable();
  }
}
