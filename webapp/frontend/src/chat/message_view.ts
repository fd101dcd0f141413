/** The DOM of one message: its text, what it waits for, what went wrong, and its buttons. */

import { copyButton, h, icon, setText } from "../shared/dom";
import { describeError } from "../shared/errors";
import { split } from "./answer";
import { AnswerText } from "./answer_text";
import { attachmentItems } from "./attachment_list";
import { type Attachment, splitAttachments, withAttachments } from "./attachments";
import type { Message } from "./conversations";
import { ReasoningView } from "./reasoning_view";
import { isOpen, isRunning, isThinking, type Live } from "./requests";
import { describeElapsed, describeThinking, describeUsage, describeWaiting } from "./words";

export interface MessageActions {
  regenerate(message: Message): void;
  /** False when the text could not be sent: the editor stays open. */
  edit(message: Message, text: string): boolean;
  openReasoning(message: Message, open: boolean): void;
}

const ATTACHED = { class: "attachments", "aria-label": "Attached texts" };
const BRANCHES = "Sending begins a new conversation. This one stays as it is.";

/** The same words would fail again; Edit can help. */
const TOO_LONG = new Set(["prompt_too_long", "content_too_large"]);

export class MessageView {
  readonly element = h("article", { class: "message", "data-testid": "message" });
  private reasoning = new ReasoningView((open) => this.actions.openReasoning(this.message, open));
  private answer = new AnswerText();
  private waitingWords = h("span", { "data-testid": "waiting" });
  private elapsed = h("span", { class: "elapsed", "aria-hidden": "true" }); // each second is no news
  private waiting = h("p", { class: "waiting" }, this.waitingWords, this.elapsed);
  private problem = h("div", { class: "problem", "data-testid": "error" });
  private foot = h("footer", { class: "foot" });
  private drawn = "";
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private editing = false;

  constructor(
    private message: Message,
    private actions: MessageActions,
  ) {
    const { role } = message;
    this.element.dataset.role = role;
    this.element.dataset.messageId = message.id;
    this.element.classList.add(role);
    this.element.setAttribute("aria-label", role === "user" ? "You" : `Answer of ${message.model ?? "the model"}`);
    if (role === "assistant")
      this.element.append(this.reasoning.element, this.answer.element, this.waiting, this.problem, this.foot);
  }

  /** `last`: of its role, so that it may be edited or generated again; `idle`: no answer runs in this conversation. */
  update(message: Message, live: Live | undefined, last: boolean, idle: boolean): void {
    this.message = message;
    if (message.role === "user") {
      this.updateUser(idle, last);
      return;
    }
    this.updateAnswer(live);
    this.element.dataset.state = stateOf(message, live);
    this.showWaiting(isOpen(message) ? describeWaiting(message, live) : "", live);
    this.redraw(JSON.stringify([message.state, message.error, message.usage, last, idle]), () => {
      this.drawProblem(last && idle);
      this.drawFoot(last && idle);
    });
  }

  private showWaiting(words: string, live: Live | undefined): void {
    this.waiting.hidden = !words;
    setText(this.waitingWords, words);
    setText(this.elapsed, words && live ? describeElapsed(live.since_ms, Date.now()) : "");
  }

  private updateAnswer(live: Live | undefined): void {
    const { content, parts, reasoning, thought_ms } = this.message;
    const text = live ? split(live.cursor) : split({ text: content, parts: parts ?? [] });
    const words = describeThinking(live && isThinking(live) ? live : undefined, live?.thought_ms ?? thought_ms);
    this.reasoning.update(reasoning ?? text.reasoning, words, this.message.reasoningOpen ?? false, !live);
    this.answer.update(text.answer, !live);
  }

  private redraw(key: string, draw: () => void): void {
    if (key === this.drawn) return;
    this.drawn = key;
    draw();
  }

  private updateUser(editable: boolean, last: boolean): void {
    this.element.dataset.state = "finished";
    if (this.editing) return;
    this.redraw(JSON.stringify([this.message.content.length, editable, last]), () => {
      const label = last ? "Edit and send again" : "Edit in a new conversation";
      const edit = h(
        "button",
        { type: "button", class: "quiet", "data-testid": "edit", "aria-label": label, title: label },
        icon("edit"),
        h("span", {}, "Edit"),
      );
      edit.onclick = () => this.openEditor(last);
      const { typed, attachments } = splitAttachments(this.message.content);
      this.element.replaceChildren(
        ...(typed ? [h("div", { class: "bubble" }, typed)] : []),
        ...(attachments.length ? [h("ul", ATTACHED, ...attachmentItems(attachments))] : []),
        h(
          "footer",
          { class: "foot" },
          copyButton("Copy message", () => this.message.content),
          editable && edit,
        ),
      );
    });
  }

  private openEditor(last: boolean): void {
    this.editing = true;
    const area = h("textarea", { "aria-label": "Edit your message", "data-testid": "edit-input", rows: "3" });
    const list = h("ul", ATTACHED);
    let { typed, attachments } = splitAttachments(this.message.content);
    area.value = typed;
    const showAttachments = () => {
      const remove = (gone: Attachment) => {
        attachments = attachments.filter((one) => one !== gone);
        showAttachments();
        area.focus();
      };
      list.replaceChildren(...attachmentItems(attachments, { remove }));
    };
    showAttachments();
    const close = () => {
      this.editing = false;
      this.drawn = "";
      this.updateUser(true, last);
      this.element.querySelector<HTMLButtonElement>("[data-testid=edit]")?.focus();
    };
    const send = () => {
      const text = withAttachments(area.value, attachments);
      if (!text) return;
      this.editing = false; // what is sent takes this message away
      this.editing = !this.actions.edit(this.message, text);
    };
    area.onkeydown = (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        send();
      }
    };
    this.element.replaceChildren(
      h(
        "div",
        { class: "editor" },
        area,
        list,
        h(
          "div",
          { class: "row-end" },
          !last && h("p", { class: "quiet-text", "data-testid": "edit-note" }, BRANCHES),
          h("button", { type: "button", class: "button", onclick: close }, "Cancel"),
          h("button", { type: "button", class: "button primary", "data-testid": "edit-send", onclick: send }, "Send"),
        ),
      ),
    );
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  private drawProblem(retryable: boolean): void {
    clearTimeout(this.retryTimer);
    const { error, state } = this.message;
    this.problem.hidden = state !== "failed";
    if (state !== "failed") return;
    const canHelp = retryable && !TOO_LONG.has(error?.code ?? "");
    const retry = h(
      "button",
      { type: "button", class: "button", "data-testid": "retry" },
      icon("again"),
      h("span", {}, "Retry"),
    );
    retry.onclick = () => this.actions.regenerate(this.message);
    this.problem.replaceChildren(
      icon("alert"),
      h(
        "div",
        { class: "problem-text" },
        h("code", { "data-testid": "error-code" }, error?.code ?? "internal"),
        h("p", {}, error ? describeError(error) : "The request failed."),
      ),
      ...(canHelp ? [retry] : []),
    );
    if (canHelp) this.countDown(retry);
  }

  private countDown(retry: HTMLButtonElement): void {
    const left_s = Math.ceil(((this.message.retry_at_ms ?? 0) - Date.now()) / 1000);
    retry.disabled = left_s > 0;
    setText(retry.lastChild as HTMLElement, left_s > 0 ? `Retry in ${left_s} s` : "Retry");
    if (left_s > 0) this.retryTimer = setTimeout(() => this.countDown(retry), 1000);
  }

  private drawFoot(regenerable: boolean): void {
    const open = isOpen(this.message);
    const again = h(
      "button",
      {
        type: "button",
        class: "quiet",
        "data-testid": "regenerate",
        "aria-label": "Regenerate this answer",
        title: "Regenerate this answer",
      },
      icon("again"),
      h("span", {}, "Regenerate"),
    );
    again.onclick = () => this.actions.regenerate(this.message);
    this.foot.hidden = open;
    this.foot.replaceChildren(
      ...(this.message.content ? [copyButton("Copy answer", () => this.message.content)] : []),
      ...(regenerable && this.message.state !== "failed" ? [again] : []),
      h("span", { class: "usage", "data-testid": "usage" }, describeUsage(this.message)),
    );
  }
}

function stateOf(message: Message, live: Live | undefined): string {
  if (!isOpen(message)) return message.state;
  if (live) return isRunning(live.phase) ? "running" : "queued";
  return message.state;
}
