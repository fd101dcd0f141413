/**
 * Answers in progress. Each one is attached to the server by `ask` (until acknowledged) or `watch` (ever after), and its
 * events go through the cursor of `answer.ts`. Its end goes into the conversation; what a reload forgets, the server's
 * journal tells again.
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
import type { Conversations } from "./conversations";
import type { Outbox } from "./outbox";
import { describeTooLarge, type Limits } from "./prompt";
import type { Ack, Ask, DoneEvent, EndStatus, Phase, RewindEvent, StatusEvent, TokensEvent, Usage } from "./protocol";
import { type Conversation, isOpen, type Message } from "./tree";

const RECEIVED_EVERY = 4_096;
const RETRY_MS = [500, 1_000, 2_000, 4_000, 8_000];
/** Errors of `watch` and `cancel` that pass; any other ends the answer. */
const PASSING = new Set(["unavailable", "busy", "internal"]);
const LEFT_BEHIND_MS = 15_000;
/** So often may the connection end while one and the same question is sent. */
const MAX_CLOSED = 3;
const STOPPED: ServerError = { code: "cancelled", message: "You stopped this question before the server had it." };

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
    private conversations: Pick<Conversations, "changeMessage" | "acknowledged" | "refused" | "load">,
    private outbox: Pick<Outbox, "get">,
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
   * Brings this tab in line with a conversation: open answers are followed, answers that ended or went are let go. What
   * another tab sends is left to it, `atStart` or after a while no more.
   */
  follow(conversation: Conversation, atStart: boolean): void {
    const open = new Set(conversation.messages.filter(isOpen).map((m) => m.id));
    for (const live of this.all()) {
      if (live.conversationId !== conversation.id || open.has(live.id)) continue;
      this.letGo(live);
      this.changed(live, true);
    }
    for (const message of conversation.messages) {
      if (!isOpen(message) || this.live.has(message.id)) continue;
      const unsent = message.sending ? this.outbox.get(message.id) : undefined;
      const isOthers = unsent && unsent.tab !== this.tab && Date.now() - unsent.created_ms < LEFT_BEHIND_MS;
      if (atStart || !isOthers) this.begin(conversation.id, message);
    }
  }

  private begin(conversationId: string, message: Message): void {
    const live: Live = {
      id: message.id,
      conversationId,
      cursor: cursorAt("", ""),
      phase: message.sending ? "sending" : "queued",
      since_ms: message.created_ms,
      thinkingSince_ms: undefined,
      thought_ms: message.thought_ms,
      position: undefined,
      eta_s: undefined,
      cancelling: false,
      unacknowledged: 0,
      attaching: false,
      shortEnds: 0,
      closed: 0,
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

  /** For a deleted conversation, whose answers the server stops. */
  abandon(conversationId: string): void {
    for (const live of this.all()) if (live.conversationId === conversationId) this.letGo(live);
  }

  /** After each `connect`. */
  reattachAll(): void {
    for (const live of this.live.values()) void this.attach(live);
  }

  // ── events of the server ────────────────────────────────────────────────────────────────────────────────────────

  onStatus = (event: StatusEvent): void => {
    const live = this.live.get(event.id);
    if (!live) return;
    this.enter(live, event.state);
    live.position = event.position;
    live.eta_s = event.eta_s;
    if (event.context) this.noteReading(live, event.context);
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
        this.turnedAway(live, ack.error);
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
    const ask = this.outbox.get(live.id)?.ask;
    const tooLarge = ask?.question && describeTooLarge(ask.question.content, ask.system ?? "", this.limits);
    if (tooLarge) return { ok: false, error: { code: "content_too_large", message: tooLarge } };
    try {
      const ack = ask
        ? await this.connection.request("ask", ask)
        : await this.connection.request("watch", { id: live.id, offset: live.cursor.length, nonce: live.cursor.nonce });
      if (ack.ok && ask) this.acknowledged(live, ask, ack.omitted);
      return ack;
    } catch {
      if (ask && !this.connection.connected) this.brokeOff(live);
      return undefined;
    }
  }

  /** A question waits in the outbox for the user's word. Of an answer whose journal has expired, the server has a row. */
  private turnedAway(live: Live, error: ServerError): void {
    if (!this.isLive(live)) return;
    if (live.phase === "sending") this.refuse(live, error);
    else if (error.code !== "gone") this.end(live, "failed", { error });
    else {
      this.forget(live);
      void this.conversations.load(live.conversationId);
    }
  }

  private refuse(live: Live, error: ServerError): void {
    this.forget(live);
    this.conversations.refused(live.conversationId, live.id, error);
    this.changed(live, true);
  }

  /** What ends the connection each time that it is sent must not be sent for ever. */
  private brokeOff(live: Live): void {
    if (++live.closed < MAX_CLOSED) return;
    const message = `The connection ended ${live.closed} times while this message was sent.`;
    this.refuse(live, { code: "connection_lost", message });
  }

  /** A stopped question that ended the connection is not sent again; whether the server has it, `cancel` will tell. */
  private gaveUp(live: Live): boolean {
    return live.cancelling && live.closed > 0;
  }

  /** How much of the conversation the model reads, which the end tells too. */
  private noteReading(live: Live, told: Partial<Usage>): void {
    this.conversations.changeMessage(live.conversationId, live.id, (message) => (message.usage = told));
  }

  private acknowledged(live: Live, ask: Ask, omitted: number | undefined): void {
    if (live.phase === "sending") live.phase = "queued";
    this.conversations.acknowledged(live.conversationId, ask, omitted);
    if (this.isLive(live)) this.changed(live, false);
  }

  /** A refused question is the user's to retry; a refused watch is tried again when the reason passes. */
  private passes(live: Live, error: ServerError): boolean {
    return live.phase !== "sending" && PASSING.has(error.code);
  }

  private async sendCancel(live: Live): Promise<void> {
    for (let attempt = 0; this.isLive(live) && this.connection.connected && !live.attaching; attempt++) {
      try {
        const ack = await this.connection.request("cancel", { id: live.id });
        if (ack.ok) return;
        const isUnknown = ack.error.code === "gone" && live.phase === "sending";
        if (isUnknown || !PASSING.has(ack.error.code)) {
          this.turnedAway(live, isUnknown ? STOPPED : ack.error);
          return;
        }
      } catch {
        /* lost: again */
      }
      await pause(retryDelay_ms(attempt));
    }
  }

  // ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────

  private end(
    live: Live,
    status: EndStatus,
    ending: { error?: ServerError | undefined; code?: string; usage?: Partial<Usage> | undefined },
  ): void {
    if (!this.isLive(live)) return;
    this.forget(live);
    const { answer, reasoning } = split(live.cursor);
    if (reasoning) live.thought_ms ??= Date.now() - (live.thinkingSince_ms ?? Date.now());
    const { error } = ending;
    this.conversations.changeMessage(live.conversationId, live.id, (message) => {
      message.content += answer; // behind what it continues
      message.reasoning += reasoning;
      message.state = status;
      message.code = ending.code ?? error?.code ?? "";
      message.error = error?.message ?? "";
      message.usage = ending.usage ?? null;
      if (live.thought_ms !== undefined) message.thought_ms = live.thought_ms;
      if (error) message.problem = error;
      if (error?.retry_after_s) message.retry_at_ms = Date.now() + error.retry_after_s * 1000;
    });
    this.changed(live, true);
  }

  private letGo(live: Live): void {
    this.forget(live);
    if (this.connection.connected) this.connection.request("unwatch", { id: live.id }).catch(() => undefined);
  }

  private forget(live: Live): void {
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

function retryDelay_ms(attempt: number): number {
  return RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] as number;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
