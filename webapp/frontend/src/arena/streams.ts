/** The two answers as they come: each is watched from its cursor, again after every break, until its end. */

import { applyDone, applyRewind, applyTokens, type Cursor, countCodePoints, cursorAt, split } from "../chat/answer";
import { Connection } from "../chat/connection";
import type { StatusEvent, TokensEvent } from "../chat/protocol";

const RECEIVED_EVERY = 4_096;
const RETRY_MS = 1_500;

export interface Said {
  reasoning: string;
  answer: string;
  phase: StatusEvent["state"];
}

interface Stream {
  cursor: Cursor;
  phase: StatusEvent["state"];
  unacknowledged: number;
}

export class Streams {
  private streams = new Map<string, Stream>();
  /** Their rows follow a little later; until then the server still calls them open. */
  private over = new Set<string>();
  private connection = new Connection(
    {
      status: ({ id, state }) => this.enter(id, state),
      tokens: (event) => {
        this.take(event.id, ({ cursor }) => applyTokens(cursor, event));
        this.acknowledge(event);
      },
      rewind: (event) => this.take(event.id, ({ cursor }) => applyRewind(cursor, event)),
      done: (event) => {
        if (this.take(event.id, ({ cursor }) => applyDone(cursor, event))) this.end(event.id);
      },
    },
    (connected) => {
      this.connected(connected);
      if (connected) for (const id of this.streams.keys()) void this.watch(id);
    },
  );

  constructor(
    private changed: (id: string, said: Said) => void,
    private ended: (id: string) => void,
    private connected: (connected: boolean) => void,
  ) {
    this.connection.open();
  }

  follow(id: string): void {
    if (this.streams.has(id) || this.over.has(id)) return;
    this.streams.set(id, { cursor: cursorAt("", ""), phase: "queued", unacknowledged: 0 });
    void this.watch(id);
  }

  leave(): void {
    for (const id of this.streams.keys())
      if (this.connection.connected) void this.connection.request("unwatch", { id });
    this.streams.clear();
    this.over.clear();
  }

  private end(id: string): void {
    this.streams.delete(id);
    this.over.add(id);
    this.ended(id);
  }

  /** Whether the event was applied. A gap asks again from where this page is. */
  private take(id: string, apply: (stream: Stream) => "applied" | "repeat" | "gap"): boolean {
    const stream = this.streams.get(id);
    if (!stream) return false;
    const outcome = apply(stream);
    if (outcome === "gap") void this.watch(id);
    if (outcome === "applied") this.enter(id, "running");
    return outcome === "applied";
  }

  private enter(id: string, phase: Stream["phase"]): void {
    const stream = this.streams.get(id);
    if (!stream) return;
    stream.phase = phase;
    this.changed(id, { ...split(stream.cursor), phase });
  }

  /** The server sends no more than a window ahead of this; it counts repeats too. */
  private acknowledge({ id, text }: TokensEvent): void {
    const stream = this.streams.get(id);
    if (!stream) return;
    stream.unacknowledged += countCodePoints(text);
    if (stream.unacknowledged < RECEIVED_EVERY) return;
    stream.unacknowledged = 0;
    this.connection.received(id, stream.cursor.length);
  }

  private async watch(id: string): Promise<void> {
    const stream = this.streams.get(id);
    if (!stream || !this.connection.connected) return;
    const { length, nonce } = stream.cursor;
    stream.unacknowledged = 0;
    const ack = await this.connection.request("watch", { id, offset: length, nonce }).catch(() => undefined);
    if (ack?.ok || this.streams.get(id) !== stream) return;
    if (ack?.error.code === "gone")
      this.ended(id); // its row has the text
    else setTimeout(() => void this.watch(id), RETRY_MS);
  }
}
