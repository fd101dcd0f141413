/**
 * Answers in progress. Each one is attached to the server by `submit` (until acknowledged) or `watch` (ever after), its
 * events go through the cursor of `answer.ts`, and its text is saved in the conversation.
 *
 * The tab that submitted saves partial text, about once a second; every tab that sees the end saves the end, which is
 * the same text for all of them.
 */

import type { ServerError } from "../shared/errors";
import {
  applyDone,
  applyRewind,
  applyTokens,
  type Cursor,
  countCodePoints,
  cursorAt,
  type Outcome,
  partOf,
  split,
} from "./answer";
import type { Connection } from "./connection";
import type { Conversation, Conversations, Message, Omission } from "./conversations";
import { describeTooLarge, type Limits, promptFor } from "./prompt";
import type { Ack, DoneEvent, EndStatus, Phase, RewindEvent, StatusEvent, TokensEvent, Usage } from "./protocol";

const RECEIVED_EVERY = 4_096;
const SAVE_EVERY_MS = 1_000;
const RETRY_MS = [500, 1_000, 2_000, 4_000, 8_000];
/** Errors of `watch` and `cancel` that pass; any other ends the answer. */
const PASSING = new Set(["unavailable", "busy", "internal"]);
const LEFT_BEHIND_MS = 15_000;
/** So often may the connection end while one and the same question is sent. */
const MAX_CLOSED = 3;

export interface Live {
  readonly id: string;
  readonly conversationId: string;
  readonly cursor: Cursor;
  phase: "sending" | Phase;
  /** Since when it waits, runs or is interrupted, by the clock of this page. */
  since_ms: number;
  /** When the reasoning began, and how long it took. */
  thinkingSince_ms: number | undefined;
  thought_ms: number | undefined;
  position: number | undefined;
  eta_s: number | undefined;
  cancelling: boolean;
  /** Code points that arrived since the last `received`, repeats included: the server counts those too. */
  unacknowledged: number;
  attaching: boolean;
  /** Times the end came while text was missing. */
  shortEnds: number;
  /** Times the connection ended while the question was sent. */
  closed: number;
  savedAt_ms: number;
  saveTimer: ReturnType<typeof setTimeout> | undefined;
}

/** The phases in which it waits for a worker count as one. */
function kindOf(phase: Live["phase"]): string {
  return isRunning(phase) ? phase : "waiting";
}

/** A worker has begun it. */
export function isRunning(phase: Live["phase"]): boolean {
  return phase === "running" || phase === "interrupted";
}

export class Requests {
  private live = new Map<string, Live>();

  constructor(
    private connection: Pick<Connection, "connected" | "request" | "received">,
    private conversations: Conversations,
    private tab: string,
    private limits: Limits,
    private changed: (live: Live, ended: boolean) => void,
  ) {}

  get(messageId: string): Live | undefined {
    return this.live.get(messageId);
  }

  all(): Live[] {
    return [...this.live.values()];
  }

  of(conversationId: string): Live | undefined {
    return this.all().find((live) => live.conversationId === conversationId);
  }

  /**
   * Brings this tab in line with what is stored, at start and when another tab changed it: unfinished answers are
   * followed, answers that ended or were removed elsewhere are let go.
   */
  follow(conversation: Conversation, atStart: boolean): void {
    const open = new Set(conversation.messages.filter(isOpen).map((m) => m.id));
    for (const live of this.all()) {
      if (live.conversationId === conversation.id && !open.has(live.id)) this.letGo(live);
    }
    for (const message of conversation.messages) {
      if (!isOpen(message) || this.live.has(message.id)) continue;
      const othersToSend = message.unsent && message.writer !== this.tab;
      if (othersToSend && !atStart && Date.now() - message.created_ms < LEFT_BEHIND_MS) continue;
      this.begin(conversation.id, message);
    }
  }

  begin(conversationId: string, message: Message): void {
    const live: Live = {
      id: message.id,
      conversationId,
      cursor: cursorAt(message.content, message.nonce ?? "", message.parts),
      phase: message.unsent ? "sending" : message.state === "running" ? "running" : "queued",
      since_ms: message.created_ms,
      thinkingSince_ms: message.thinkingSince_ms,
      thought_ms: message.thought_ms,
      position: undefined,
      eta_s: undefined,
      cancelling: false,
      unacknowledged: 0,
      attaching: false,
      shortEnds: 0,
      closed: 0,
      savedAt_ms: Date.now(),
      saveTimer: undefined,
    };
    this.live.set(live.id, live);
    void this.attach(live);
  }

  /** Asks the server to stop; the answer ends when `done` comes. Works offline too: it is sent after reconnecting. */
  async cancel(id: string): Promise<void> {
    const live = this.live.get(id);
    if (!live || live.cancelling) return;
    live.cancelling = true;
    this.changed(live, false);
    await this.sendCancel(live);
  }

  /** For a deleted conversation: nobody will read the answer. */
  abandon(conversationId: string): void {
    for (const live of this.all()) {
      if (live.conversationId !== conversationId) continue;
      if (this.connection.connected) this.connection.request("cancel", { id: live.id }).catch(() => undefined);
      this.letGo(live);
    }
  }

  /** After each `connect`. */
  reattachAll(): void {
    for (const live of this.live.values()) void this.attach(live);
  }

  /** Before the page goes away. */
  saveAll(): void {
    for (const live of this.live.values()) this.savePartial(live);
  }

  // ── events of the server ────────────────────────────────────────────────────────────────────────────────────────

  onStatus = (event: StatusEvent): void => {
    const live = this.live.get(event.id);
    if (!live) return;
    this.enter(live, event.state);
    live.position = event.position;
    live.eta_s = event.eta_s;
    if (event.context) this.noteOmission(live, event.context);
    this.savePartialSoon(live);
    this.changed(live, false);
  };

  onTokens = (event: TokensEvent): void => {
    const live = this.live.get(event.id);
    if (!live) return;
    const outcome = applyTokens(live.cursor, event);
    if (outcome === "applied") noteThinking(live);
    this.settle(live, outcome);
    live.unacknowledged += countCodePoints(event.text);
    if (live.unacknowledged < RECEIVED_EVERY) return;
    live.unacknowledged = 0;
    this.connection.received(live.id, live.cursor.length);
  };

  onRewind = (event: RewindEvent): void => {
    const live = this.live.get(event.id);
    if (live) this.settle(live, applyRewind(live.cursor, event));
  };

  onDone = (event: DoneEvent): void => {
    const live = this.live.get(event.id);
    if (!live) return;
    if (applyDone(live.cursor, event) === "gap" && live.shortEnds++ < 2) {
      // Once from where we are; if the end disagrees again, our text is wrong: all of it anew.
      if (live.shortEnds === 2) Object.assign(live.cursor, cursorAt("", ""));
      void this.attach(live);
      return;
    }
    if (event.usage?.prompt_tokens !== undefined) this.noteOmission(live, event.usage);
    const error =
      event.status === "failed" ? { code: event.code, message: event.message || "The request failed." } : undefined;
    this.end(live, event.status, { error, code: event.code, usage: event.usage ?? undefined });
  };

  private enter(live: Live, phase: Live["phase"]): void {
    if (kindOf(phase) !== kindOf(live.phase)) live.since_ms = Date.now();
    live.phase = phase;
  }

  private settle(live: Live, outcome: Outcome): void {
    if (outcome === "gap") void this.attach(live);
    if (outcome !== "applied") return;
    this.enter(live, "running");
    live.position = undefined;
    this.savePartialSoon(live);
    this.changed(live, false);
  }

  // ── attaching ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** One at a time per answer; a lost acknowledgement tries again, a lost connection waits for `reattachAll`. */
  private async attach(live: Live): Promise<void> {
    if (live.attaching) return;
    live.attaching = true;
    for (let attempt = 0; this.isLive(live) && this.connection.connected && !this.gaveUp(live); attempt++) {
      const ack = await this.introduce(live);
      if (ack?.ok) break;
      if (ack && !this.passes(live, ack.error)) {
        this.end(live, "failed", { error: ack.error });
        break;
      }
      await pause(ack?.error.retry_after_s ? ack.error.retry_after_s * 1000 : retryDelay_ms(attempt));
    }
    live.attaching = false;
    if (live.cancelling && this.isLive(live)) void this.sendCancel(live);
  }

  /** Undefined when the acknowledgement was lost. */
  private async introduce(live: Live): Promise<Ack | undefined> {
    live.unacknowledged = 0;
    const submit = live.cursor.length === 0 ? this.submission(live) : undefined;
    const tooLarge = submit && describeTooLarge(submit.question, submit.system, this.limits);
    if (tooLarge) return { ok: false, error: { code: "content_too_large", message: tooLarge } };
    try {
      const ack = submit
        ? await this.connection.request("submit", submit.payload)
        : await this.connection.request("watch", { id: live.id, offset: live.cursor.length, nonce: live.cursor.nonce });
      if (ack.ok && submit) this.acknowledged(live);
      return ack;
    } catch {
      if (submit && !this.connection.connected) this.brokeOff(live);
      return undefined;
    }
  }

  /** What ends the connection each time that it is sent must not be sent for ever. */
  private brokeOff(live: Live): void {
    if (++live.closed < MAX_CLOSED) return;
    const message = `The connection ended ${live.closed} times while this message was sent.`;
    this.end(live, "failed", { error: { code: "connection_lost", message } });
  }

  /** A stopped question that ended the connection is not sent again; whether the server has it, `cancel` will tell. */
  private gaveUp(live: Live): boolean {
    return live.cancelling && live.closed > 0;
  }

  private submission(live: Live) {
    const conversation = this.conversations.get(live.conversationId);
    const message = conversation?.messages.find((m) => m.id === live.id);
    if (!conversation || !message?.unsent) return undefined;
    const { system, ...options } = message.unsent;
    const { messages, said } = promptFor(conversation, live.id, system, this.limits);
    const payload = { id: live.id, model: message.model ?? conversation.model, messages, ...options };
    return { payload, system, question: said.at(-1)?.content ?? "" };
  }

  /** Remembers from where on the model reads the conversation: what we did not send, and what it could not read. */
  private noteOmission(live: Live, told: Partial<Usage>): void {
    const conversation = this.conversations.get(live.conversationId);
    if (!conversation) return;
    const { said, omitted } = promptFor(conversation, live.id, conversation.system, this.limits);
    const unread = told.omitted_messages ?? 0;
    const first = said[unread]?.id;
    if (!first || omitted + unread === 0) return;
    const context: Omission = { first, omitted: omitted + unread, context_tokens: told.context_tokens };
    this.conversations.changeMessage(live.conversationId, live.id, (message) => (message.context = context));
  }

  private acknowledged(live: Live): void {
    if (live.phase === "sending") live.phase = "queued";
    this.conversations.changeMessage(live.conversationId, live.id, (message) => delete message.unsent);
    if (this.isLive(live)) this.changed(live, false);
  }

  /** A refused submit is the user's to retry; a refused watch is tried again when the reason passes. */
  private passes(live: Live, error: ServerError): boolean {
    return live.phase !== "sending" && PASSING.has(error.code);
  }

  private async sendCancel(live: Live): Promise<void> {
    for (let attempt = 0; this.isLive(live) && this.connection.connected && !live.attaching; attempt++) {
      try {
        const ack = await this.connection.request("cancel", { id: live.id });
        if (ack.ok) return;
        if (ack.error.code === "gone" && live.phase === "sending") return this.end(live, "cancelled", {});
        if (!PASSING.has(ack.error.code)) return this.end(live, "failed", { error: ack.error });
      } catch {
        /* lost: again */
      }
      await pause(retryDelay_ms(attempt));
    }
  }

  // ── saving ──────────────────────────────────────────────────────────────────────────────────────────────────────

  private end(
    live: Live,
    status: EndStatus,
    ending: { error?: ServerError; code?: string; usage?: Partial<Usage> },
  ): void {
    if (!this.isLive(live)) return;
    this.forget(live);
    const { answer, reasoning } = split(live.cursor);
    if (reasoning) live.thought_ms ??= Date.now() - (live.thinkingSince_ms ?? Date.now());
    this.conversations.changeMessage(live.conversationId, live.id, (message) => {
      message.content = answer;
      if (reasoning) Object.assign(message, { reasoning, thought_ms: live.thought_ms });
      message.state = status;
      message.code = ending.code;
      message.usage = ending.usage;
      message.error = ending.error;
      if (ending.error?.retry_after_s) message.retry_at_ms = Date.now() + ending.error.retry_after_s * 1000;
      for (const key of ["nonce", "writer", "unsent", "parts", "thinkingSince_ms"] as const) delete message[key];
    });
    this.changed(live, true);
  }

  private savePartialSoon(live: Live): void {
    if (live.saveTimer !== undefined) return;
    live.saveTimer = setTimeout(
      () => this.savePartial(live),
      Math.max(0, live.savedAt_ms + SAVE_EVERY_MS - Date.now()),
    );
  }

  private savePartial(live: Live): void {
    clearTimeout(live.saveTimer);
    live.saveTimer = undefined;
    live.savedAt_ms = Date.now();
    const stored = this.conversations.get(live.conversationId)?.messages.find((m) => m.id === live.id);
    if (stored?.writer !== this.tab || !isOpen(stored)) return;
    this.conversations.changeMessage(live.conversationId, live.id, (message) => {
      message.content = live.cursor.text;
      if (live.cursor.parts.length > 0) {
        const { thinkingSince_ms, thought_ms } = live;
        Object.assign(message, { parts: live.cursor.parts, thinkingSince_ms, thought_ms });
      }
      message.nonce = live.cursor.nonce;
      message.state = isRunning(live.phase) ? "running" : "queued";
    });
  }

  private letGo(live: Live): void {
    this.forget(live);
    if (this.connection.connected) this.connection.request("unwatch", { id: live.id }).catch(() => undefined);
  }

  private forget(live: Live): void {
    clearTimeout(live.saveTimer);
    this.live.delete(live.id);
  }

  private isLive(live: Live): boolean {
    return this.live.get(live.id) === live;
  }
}

/** It thinks, and has not begun to answer. */
export function isThinking(live: Pick<Live, "cursor" | "phase">): boolean {
  return isRunning(live.phase) && partOf(live.cursor) === "reasoning";
}

function noteThinking(live: Live): void {
  if (partOf(live.cursor) === "reasoning") live.thinkingSince_ms ??= Date.now();
  else if (live.thinkingSince_ms !== undefined) live.thought_ms ??= Date.now() - live.thinkingSince_ms;
}

export function isOpen(message: Message): boolean {
  return message.state === "queued" || message.state === "running";
}

function retryDelay_ms(attempt: number): number {
  return RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] as number;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
