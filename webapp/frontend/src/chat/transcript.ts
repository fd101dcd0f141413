/** The log of messages: one view per message id, and a scroll position that follows the answer until the user looks up. */

import { byId, h, setText } from "../shared/dom";
import { copySources } from "./formula_view";
import { type MessageActions, MessageView } from "./message_view";
import type { Live } from "./requests";
import { type Conversation, isOpen, type Message, pathOf, shownOf, versionsOf } from "./tree";
import { describeOmission, omissionOf } from "./words";

const NEAR_END_PX = 40;

export interface Surroundings {
  liveOf(messageId: string): Live | undefined;
  isReasoningOpen(messageId: string): boolean;
}

export class Transcript {
  private scroller = byId("scroller");
  private log = byId("log");
  private empty = byId("empty");
  private jump = byId<HTMLButtonElement>("jump");
  private mark = h("p", { class: "context-mark", "data-testid": "context-mark" });
  private views = new Map<string, MessageView>();
  private shownId: string | undefined;
  private wanted: string | undefined;
  private following = true;
  private lastTop = 0;

  constructor(
    private actions: MessageActions | undefined,
    private around: Surroundings,
  ) {
    this.scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.jump.onclick = () => this.toEnd();
    copySources(this.log);
    const sizes = new ResizeObserver(() => this.stay());
    sizes.observe(this.log);
    sizes.observe(this.scroller);
  }

  show(conversation: Conversation | undefined): void {
    const switched = conversation?.id !== this.shownId;
    if (switched) this.clear();
    this.shownId = conversation?.id;
    const path = conversation ? pathOf(conversation) : [];
    const messages = shownOf(path);
    this.empty.hidden = messages.length > 0;
    this.log.hidden = messages.length === 0;
    this.log.setAttribute("aria-busy", String(messages.some(isOpen)));
    this.place(messages, path);
    if (conversation) this.update(conversation, messages, () => true);
    if (switched) this.toEnd();
    this.pointOutWanted();
  }

  /** New text of one answer. */
  refresh(conversation: Conversation, messageId: string): void {
    this.update(conversation, shownOf(pathOf(conversation)), (message) => message.id === messageId);
  }

  /** Scrolls to a message as soon as it is shown, and draws the eye to it. */
  pointOut(messageId: string): void {
    this.wanted = messageId;
    this.pointOutWanted();
  }

  /** Follow the newest text again. */
  toEnd(): void {
    this.following = true;
    this.stay();
  }

  toStart(): void {
    this.following = false;
    this.scroller.scrollTop = 0;
  }

  /** As a press of its Copy button would. False when there is none. */
  copyLast(what: "answer" | "code"): boolean {
    const place = what === "answer" ? ".assistant > .foot:not([hidden])" : ".assistant .code-head";
    const button = [...this.log.querySelectorAll<HTMLButtonElement>(`${place} [data-testid=copy]`)].at(-1);
    button?.click();
    return button !== undefined;
  }

  private pointOutWanted(): void {
    const view = this.views.get(this.wanted ?? "");
    if (!view) return;
    this.wanted = undefined;
    this.following = false;
    view.pointOut();
  }

  private clear(): void {
    this.views.clear();
    this.log.replaceChildren();
  }

  /** Removes the views of removed messages and puts the others in order, touching only what is out of place. */
  private place(messages: Message[], path: Message[]): void {
    const wanted = new Set(messages.map((message) => message.id));
    for (const [id, view] of this.views) {
      if (wanted.has(id)) continue;
      view.element.remove();
      this.views.delete(id);
    }
    for (const message of messages) {
      if (!this.views.has(message.id)) this.views.set(message.id, new MessageView(message, this.actions));
    }
    const omission = omissionOf(path);
    if (omission) setText(this.mark, describeOmission(omission));
    const elements = messages.flatMap(({ id }) => {
      const { element } = this.views.get(id) as MessageView;
      return id === omission?.first ? [this.mark, element] : [element];
    });
    if (!elements.includes(this.mark)) this.mark.remove();
    elements.forEach((element, i) => {
      if (this.log.children[i] !== element) this.log.insertBefore(element, this.log.children[i] ?? null);
    });
  }

  private update({ messages: all }: Conversation, messages: Message[], which: (message: Message) => boolean): void {
    const idle = !all.some(isOpen);
    const lastAnswer = messages.findLast(({ role }) => role === "assistant");
    for (const message of messages.filter(which)) {
      this.views.get(message.id)?.update(message, {
        live: this.around.liveOf(message.id),
        versions: versionsOf(all, message),
        idle,
        last: message === lastAnswer,
        reasoningOpen: this.around.isReasoningOpen(message.id),
      });
    }
  }

  private onScroll(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const nearEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    if (nearEnd) this.following = true;
    else if (scrollTop < this.lastTop - 1) this.following = false;
    this.lastTop = scrollTop;
    this.jump.hidden = this.following;
  }

  private stay(): void {
    if (this.following && !this.log.hidden) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.jump.hidden = this.following;
  }
}
