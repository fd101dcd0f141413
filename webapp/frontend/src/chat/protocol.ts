/** The messages of docs/protocol.md as types. Nothing else in the page spells an event's fields. */

import type { ServerError } from "../shared/errors";

export type Role = "system" | "user" | "assistant" | "tool";
export type EndStatus = "finished" | "failed" | "cancelled";

/** What is left out is the model's own; the length alone has a default of the server's. */
export interface Sampling {
  max_new_tokens?: number;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  seed?: number;
  stop?: string[];
}
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  first_token_ms: number;
  total_ms: number;
  /** What the model can read. */
  context_tokens: number;
  /** Of the submitted messages, the oldest that it did not read. */
  omitted_messages: number;
  /** Of the completion tokens. */
  reasoning_tokens: number;
}

/** A question in its conversation, or one more answer to one. Sent again, it is the same one. */
export interface Ask {
  conversation: string;
  /** Of the answer, which is its request. */
  id: string;
  /** What the question follows (null: nothing); without a question, the question that is answered once more. */
  parent: string | null;
  question?: { id: string; content: string };
  model: string;
  sampling?: Sampling;
  /** Whether the model thinks first; none: as it does by itself. */
  thinking?: boolean;
  /** Of a conversation that begins with it. */
  title?: string;
  system?: string;
  /** The answer whose text the new one begins with. */
  continues?: string;
}
export interface Watch {
  id: string;
  offset: number;
  nonce: string;
}
/** `omitted`: how many older messages had no room in the request. */
export type Ack = { ok: true; omitted?: number } | { ok: false; error: ServerError };

/** It waits for its turn, a loading model or any worker; its worker reads or writes; its worker is not heard of. */
export type Phase = "queued" | "loading" | "no_worker" | "running" | "interrupted";

export interface StatusEvent {
  id: string;
  state: Phase;
  position?: number;
  eta_s?: number;
  /** Of a running answer, if the model could not read all messages. */
  context?: Pick<Usage, "prompt_tokens" | "omitted_messages"> & Partial<Usage>;
}
export interface TokensEvent {
  id: string;
  offset: number;
  nonce: string;
  text: string;
  /** Of which part all of this text is: none means the answer. */
  part?: string;
}
export interface RewindEvent {
  id: string;
  offset: number;
  nonce: string;
}
export interface DoneEvent {
  id: string;
  status: EndStatus;
  offset: number;
  code: string;
  message?: string;
  usage?: Partial<Usage> | null;
  /** Where each part of the whole text begins; none: all of it is the answer. */
  parts?: [number, string][];
}

export interface Model {
  name: string;
  workers: number;
  slots: number;
  running: number;
  queued: number;
  tokens_per_s: number | null;
  context_tokens: number | null;
  /** What applies where a request leaves an option open. */
  sampling?: { temperature: number };
  /** What a request may carry; `thinking`: the model's template has a switch for it. */
  supports?: string[];
  /** A small packaged model, often wrong. */
  demonstration?: boolean;
  /** Nobody serves it: a worker is loading it, none is loading it yet though it is wanted, its workers have gone. */
  state?: "served" | "loading" | "wanted" | "away";
}
