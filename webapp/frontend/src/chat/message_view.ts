/** The DOM of one message: its text, what it waits for, what went wrong, and its buttons. */

import { copyButton, h, icon, setText } from "../shared/dom";
import { describeError } from "../shared/errors";
import { split } from "./answer";
import { AnswerText } from "./answer_text";
import { attachmentItems } from "./attachment_list";
import { type Attachment, splitAttachments, withAttachments } from "./attachments";
import { type Judge, judgementButtons } from "./judgement";
import { ReasoningView } from "./reasoning_view";
import { isRunning, isThinking, type Live } from "./requests";
import { isOpen, type Message, problemOf, type Versions } from "./tree";
import { versionSwitch } from "./version_switch";
import { canContinue, describeElapsed, describeThinking, describeUsage, describeWaiting } from "./words";

/** What a reader may do; of a conversation that is only shown, nothing. */
export interface MessageActions {
  regenerate(message: Message): void;
  retry(message: Message): void;
  goOn(message: Message): void;
  showVersion(id: string): void;
  judge: Judge;
  openJudgement(message: Message): void;
  /** False when the text could not be sent: the editor stays open. */
  edit(message: Message, text: string): boolean;
  openReasoning(message: Message, open: boolean): void;
}

/** What surrounds a message. */
export interface Place {
  live: Live | undefined;
  versions: Versions;
  /** No answer runs in this conversation. */
  idle: boolean;
  /** Of the answers, the last one. */
  last: boolean;
  reasoningOpen: boolean;
}

const ATTACHED = { class: "attachments", "aria-label": "Attached texts" };
const BRANCHES = "Sending makes a new version. This one stays as it is.";

/** The same words would fail again; Edit can help. */
const TOO_LONG = new Set(["prompt_too_long", "content_too_large"]);

export class MessageView {
  readonly element = h("article", { class: "message", "data-testid": "message" });
  private reasoning = new ReasoningView((open) => this.actions?.openReasoning(this.message, open));
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
    private actions: MessageActions | undefined,
  ) {
    const { role } = message;
    this.element.dataset.role = role;
    this.element.dataset.messageId = message.id;
    this.element.classList.add(role);
    this.element.setAttribute("aria-label", role === "user" ? "You" : `Answer of ${message.model || "the model"}`);
    if (role === "assistant")
      this.element.append(this.reasoning.element, this.answer.element, this.waiting, this.problem, this.foot);
  }

  update(message: Message, place: Place): void {
    this.message = message;
    if (message.role === "user") {
      this.updateUser(place);
      return;
    }
    const { live, versions, idle, last } = place;
    this.updateAnswer(live, place.reasoningOpen);
    this.element.dataset.state = stateOf(message, live);
    this.showWaiting(isOpen(message) ? describeWaiting(message, live) : "", live);
    const { state, usage, feedback, problem, error } = message;
    this.redraw(JSON.stringify([state, error, problem, usage, feedback, versions, idle, last]), () => {
      this.drawProblem(idle && last);
      this.drawFoot(place);
    });
  }

  /** Draws the eye to a message that was searched for. */
  pointOut(): void {
    this.element.scrollIntoView({ block: "center" });
    this.element.classList.remove("found");
    void this.element.offsetWidth; // so that the animation begins anew
    this.element.classList.add("found");
  }

  private showWaiting(words: string, live: Live | undefined): void {
    this.waiting.hidden = !words;
    setText(this.waitingWords, words);
    setText(this.elapsed, words && live ? describeElapsed(live.since_ms, Date.now()) : "");
  }

  private updateAnswer(live: Live | undefined, open: boolean): void {
    const { content, reasoning, thought_ms } = this.message;
    const coming = live ? split(live.cursor) : { answer: "", reasoning: "" };
    const words = describeThinking(live && isThinking(live) ? live : undefined, live?.thought_ms ?? thought_ms);
    this.reasoning.update(reasoning + coming.reasoning, words, open, !live);
    this.answer.update(content + coming.answer, !live);
  }

  private redraw(key: string, draw: () => void): void {
    if (key === this.drawn) return;
    this.drawn = key;
    draw();
  }

  private updateUser({ idle, versions }: Pick<Place, "idle" | "versions">): void {
    this.element.dataset.state = "finished";
    if (this.editing) return;
    this.redraw(JSON.stringify([this.message.content.length, idle, versions]), () => {
      const label = "Edit and send again";
      const edit = h(
        "button",
        { type: "button", class: "quiet", "data-testid": "edit", "aria-label": label, title: label },
        icon("edit"),
        h("span", {}, "Edit"),
      );
      edit.onclick = () => this.openEditor(versions);
      const { typed, attachments } = splitAttachments(this.message.content);
      this.element.replaceChildren(
        ...(typed ? [h("div", { class: "bubble" }, typed)] : []),
        ...(attachments.length ? [h("ul", ATTACHED, ...attachmentItems(attachments))] : []),
        h(
          "footer",
          { class: "foot" },
          copyButton("Copy message", () => this.message.content),
          this.actions && idle && edit,
          ...versionSwitch(versions, (id) => this.actions?.showVersion(id)),
        ),
      );
    });
  }

  private openEditor(versions: Versions): void {
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
      this.updateUser({ idle: true, versions });
      this.element.querySelector<HTMLButtonElement>("[data-testid=edit]")?.focus();
    };
    const send = () => {
      const text = withAttachments(area.value, attachments);
      if (!text) return;
      this.editing = false; // what is sent takes this message away
      this.editing = this.actions?.edit(this.message, text) === false;
      this.drawn = "";
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
          h("p", { class: "quiet-text", "data-testid": "edit-note" }, BRANCHES),
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
    const error = problemOf(this.message);
    this.problem.hidden = !error;
    if (!error) return;
    const canHelp = this.actions && retryable && !TOO_LONG.has(error.code);
    const retry = h(
      "button",
      { type: "button", class: "button", "data-testid": "retry" },
      icon("again"),
      h("span", {}, "Retry"),
    );
    retry.onclick = () => this.actions?.retry(this.message);
    this.problem.replaceChildren(
      icon("alert"),
      h(
        "div",
        { class: "problem-text" },
        h("code", { "data-testid": "error-code" }, error.code),
        h("p", {}, describeError(error)),
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

  private drawFoot({ idle, versions }: Place): void {
    const { message, actions } = this;
    this.foot.hidden = isOpen(message);
    const again =
      idle &&
      message.state !== "unsent" &&
      footButton("again", "Regenerate", "Regenerate this answer", "regenerate", () => actions?.regenerate(message));
    const goOn =
      idle &&
      canContinue(message) &&
      footButton("on", "Continue", "Continue this answer", "continue", () => actions?.goOn(message));
    const judge = (one: Message) => actions?.openJudgement(one);
    this.foot.replaceChildren(
      ...(message.content ? [copyButton("Copy answer", () => this.message.content)] : []),
      ...(actions && again ? [again] : []),
      ...(actions && goOn ? [goOn] : []),
      ...versionSwitch(versions, (id) => actions?.showVersion(id)),
      ...(actions && message.content ? judgementButtons(message, actions.judge, judge) : []),
      h("span", { class: "usage", "data-testid": "usage" }, describeUsage(message)),
    );
  }
}

function footButton(symbol: string, word: string, label: string, testid: string, onclick: () => void) {
  const attributes = { type: "button", class: "quiet", "data-testid": testid, "aria-label": label, title: label };
  return h("button", { ...attributes, onclick }, icon(symbol), h("span", {}, word));
}

function stateOf(message: Message, live: Live | undefined): string {
  if (message.state === "unsent") return "failed";
  if (!isOpen(message)) return message.state;
  return live && isRunning(live.phase) ? "running" : "queued";
}
