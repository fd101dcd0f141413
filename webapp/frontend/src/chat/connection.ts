/**
 * The socket: connects with the session cookie, reconnects for ever, and declares a silent link dead after 45 s.
 * It knows nothing of answers; `requests.ts` decides what to say after each `connect`.
 */

import { io } from "socket.io-client";
import type { Ack, DoneEvent, RewindEvent, StatusEvent, TokensEvent } from "./protocol";

const ACK_TIMEOUT_MS = 10_000;
/** More time for a long message: 20 KB/s is a slow line. */
const ACK_TIMEOUT_MS_PER_CHAR = 0.05;
const SILENCE_MS = 45_000;
const SILENCE_CHECK_MS = 5_000;
const REFUSED_RETRY_MS = 1_000;

export interface Handlers {
  status(event: StatusEvent): void;
  tokens(event: TokensEvent): void;
  rewind(event: RewindEvent): void;
  done(event: DoneEvent): void;
}

export class Connection {
  private socket = io({
    autoConnect: false,
    reconnectionDelay: 500,
    reconnectionDelayMax: 5_000,
    withCredentials: true,
  });
  private lastHeard_ms = Date.now();

  constructor(handlers: Handlers, onChange: (connected: boolean) => void) {
    for (const [event, handler] of Object.entries(handlers)) this.socket.on(event, handler);
    this.socket.on("connect", () => onChange(true));
    this.socket.on("disconnect", (reason) => {
      onChange(false);
      // socket.io does not come back by itself after these two.
      if (reason === "io server disconnect" || reason === "io client disconnect") this.reconnectSoon();
    });
    this.socket.on("connect_error", (error) => {
      onChange(false);
      if (!this.socket.active) void renewSession(error.message).finally(() => this.reconnectSoon());
    });
    this.socket.io.on("open", () => {
      this.heard();
      this.socket.io.engine.on("packet", () => this.heard());
    });
    setInterval(() => this.dropIfSilent(), SILENCE_CHECK_MS);
    document.addEventListener("visibilitychange", () => this.dropIfSilent());
    window.addEventListener("online", () => this.dropIfSilent());
  }

  get connected(): boolean {
    return this.socket.connected;
  }

  open(): void {
    this.socket.connect();
  }

  /** Throws when no acknowledgement came in time or the connection went away. */
  request(event: "ask" | "watch" | "unwatch" | "cancel", payload: object): Promise<Ack> {
    const timeout_ms = ACK_TIMEOUT_MS + ACK_TIMEOUT_MS_PER_CHAR * JSON.stringify(payload).length;
    return this.socket.timeout(timeout_ms).emitWithAck(event, payload) as Promise<Ack>;
  }

  received(id: string, offset: number): void {
    this.socket.emit("received", { id, offset });
  }

  private heard(): void {
    this.lastHeard_ms = Date.now();
  }

  private dropIfSilent(): void {
    if (!this.socket.connected || Date.now() - this.lastHeard_ms < SILENCE_MS) return;
    this.heard();
    this.socket.io.engine.close();
  }

  /** Spread out, since a restarting server refuses everybody at once. */
  private reconnectSoon(): void {
    setTimeout(() => this.socket.connect(), REFUSED_RETRY_MS * (1 + 2 * Math.random()));
  }
}

/** The server refuses a socket without its cookie; this route sets one. */
async function renewSession(reason: string): Promise<void> {
  console.warn(`the server refused the socket (${reason}); asking for a new session`);
  await fetch("/api/session", { credentials: "same-origin" }).catch(() => undefined);
}
