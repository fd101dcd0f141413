/** What the page says about an answer's progress. Pure. */

import { describeError } from "../shared/errors";
import { saidBefore } from "./prompt";
import type { Model } from "./protocol";
import type { Live } from "./requests";
import { type Message, problemOf } from "./tree";

type Progress = Pick<Live, "phase" | "position" | "eta_s" | "cancelling"> & { cursor: { length: number } };

const ELAPSED_FROM_S = 3;

/** Empty while text is flowing. */
export function describeWaiting(message: Message, live: Progress | undefined): string {
  if (!live) return message.content ? "" : "Waiting…";
  if (live.cancelling) return "Stopping…";
  const model = message.model || "this model";
  switch (live.phase) {
    case "sending":
      return "Sending…";
    case "queued":
      return queued(live);
    case "loading":
      return `Waiting while a worker loads ${model}`;
    case "no_worker":
      return `Waiting for a worker that serves ${model}`;
    case "interrupted":
      return "Interrupted. It continues by itself.";
    default:
      return live.cursor.length === 0 ? "Reading the prompt…" : "";
  }
}

/** The line over a reasoning: that it goes on and since when, or how long it took. */
export function describeThinking(
  live: Pick<Live, "thinkingSince_ms"> | undefined,
  thought_ms?: number,
  now_ms = Date.now(),
): string {
  if (live) return `Thinking… ${live.thinkingSince_ms ? describeElapsed(live.thinkingSince_ms, now_ms) : ""}`.trim();
  if (thought_ms === undefined) return "Thought";
  if (thought_ms < 1_000) return "Thought for a moment";
  return `Thought for ${duration_s(Math.round(thought_ms / 1000))}`;
}

/** How long it has been so; empty for what is about to pass. */
export function describeElapsed(since_ms: number, now_ms: number): string {
  const elapsed_s = Math.floor((now_ms - since_ms) / 1000);
  if (elapsed_s < ELAPSED_FROM_S) return "";
  return duration_s(elapsed_s);
}

function duration_s(seconds: number): string {
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

function queued({ position, eta_s }: Progress): string {
  if (position === undefined) return "Waiting in the queue…";
  const place =
    position === 0
      ? "You are next"
      : position === 1
        ? "1 request ahead of you"
        : `${position.toLocaleString("en")} requests ahead of you`;
  return place + duration(eta_s);
}

/** Only as exact as an estimate is; nothing for what is about to happen. */
function duration(eta_s: number | undefined): string {
  if (eta_s === undefined || eta_s < 3) return "";
  if (eta_s < 60) return `, about ${eta_s < 10 ? eta_s : Math.round(eta_s / 5) * 5} s`;
  return `, about ${Math.round(eta_s / 60)} min`;
}

/** A model in the list of the picker. */
export function describeModel(model: Model): string {
  if (model.workers === 0) return `${model.name} (${withoutWorker(model)})`;
  return model.queued > 0 ? `${model.name} (${model.queued} waiting)` : model.name;
}

function withoutWorker({ state }: Model): string {
  return state === "loading" ? "loading" : state === "wanted" ? "waiting for a worker" : "no worker";
}

/** The notice over the composer when the chosen model cannot answer now. `othersServed`: another one can. */
export function describeMissing(model: Model | undefined, othersServed: boolean): string {
  if (model && model.workers > 0) return "";
  if (model?.state === "loading")
    return `A worker is loading ${model.name}. A question waits until the model is loaded.`;
  if (!othersServed) return "No worker is serving right now. A question waits in the queue until one starts.";
  return model
    ? `No worker is serving ${model.name} right now. Choose another model, or let a question wait in the queue.`
    : "";
}

/** The line under an ended answer. */
export function describeUsage(message: Message): string {
  const parts: string[] = [];
  if (message.state === "cancelled") parts.push("Stopped");
  if (message.state === "finished" && message.code === "length")
    parts.push(isContextFull(message) ? "The context is full" : "Reached the token limit");
  if (message.reasoning && !message.content) parts.push("No answer: the model only thought");
  const verdict = message.extra.moderation?.answer;
  if (typeof verdict === "string") parts.push(`Moderation: ${verdict}`);
  const { completion_tokens, first_token_ms, total_ms } = message.usage ?? {};
  if (completion_tokens) {
    parts.push(`${completion_tokens.toLocaleString("en")} ${completion_tokens === 1 ? "token" : "tokens"}`);
    const rate = tokensPerSecond(completion_tokens, first_token_ms, total_ms);
    if (rate !== undefined)
      parts.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en")} tokens/s`);
  }
  return parts.join(" · ");
}

/** A token of most languages has about so many characters. */
const CHARACTERS_PER_TOKEN = 4;

/**
 * How full the model's context is, by the newest answer that tells, and about how much what is `typed` adds; empty until
 * one does. `context_tokens`: what the chosen model can read, for a conversation without an answer.
 */
export function describeContext(path: Message[], typed: string, context_tokens?: number | null): string {
  const told = path.findLast((message) => message.usage?.context_tokens)?.usage;
  const limit = told?.context_tokens ?? context_tokens;
  const used = (told?.prompt_tokens ?? 0) + (told?.completion_tokens ?? 0);
  const more = Math.ceil(typed.length / CHARACTERS_PER_TOKEN);
  if (!limit || used + more === 0) return "";
  if (more === 0) return `Context ${percent(used, limit)}% full (${count(used)} of ${count(limit)} tokens)`;
  const left = Math.max(0, limit - used - more);
  return `About ${count(more)} ${more === 1 ? "token" : "tokens"} typed, about ${count(left)} left in the context`;
}

function percent(part: number, whole: number): number {
  return Math.min(100, Math.round((100 * part) / whole));
}

function count(number: number): string {
  return number.toLocaleString("en");
}

/** Of the messages before an answer, the model read those from `first` on. */
export interface Omission {
  first: string;
  omitted: number;
  context_tokens: number | undefined;
}

/** Where the model began to read, by the newest answer that tells. */
export function omissionOf(path: Message[]): Omission | undefined {
  const isTold = (m: Message) => m.role === "assistant" && (m.state === "finished" || unread(m) > 0);
  const answer = path.findLast(isTold);
  const omitted = answer ? unread(answer) : 0;
  const first = answer && omitted > 0 ? saidBefore(path, answer.id)[omitted]?.id : undefined;
  return first ? { first, omitted, context_tokens: answer?.usage?.context_tokens } : undefined;
}

/** What had no room in the request, and what the model could not read of it. */
function unread({ extra, usage }: Message): number {
  return (extra.omitted ?? 0) + (usage?.omitted_messages ?? 0);
}

/** The line in the transcript where the model begins to read. */
export function describeOmission({ omitted, context_tokens }: Omission): string {
  const context = context_tokens ? ` (${context_tokens.toLocaleString("en")} tokens)` : "";
  return `The model reads from here on: ${omitted.toLocaleString("en")} earlier messages no longer fit its context${context}`;
}

/** Whether the model can go on where an answer ended. */
export function canContinue(message: Message): boolean {
  const { state, code, content } = message;
  const ended = state === "cancelled" || state === "failed" || (state === "finished" && code === "length");
  return ended && content.trim() !== "" && !isContextFull(message);
}

/** The answer could not become longer, whatever the settings say. */
function isContextFull({ usage }: Pick<Message, "usage">): boolean {
  const { prompt_tokens = 0, completion_tokens = 0, context_tokens } = usage ?? {};
  return context_tokens !== undefined && prompt_tokens + completion_tokens >= context_tokens;
}

export function tokensPerSecond(tokens: number, first_token_ms?: number, total_ms?: number): number | undefined {
  if (first_token_ms === undefined || total_ms === undefined || total_ms <= first_token_ms) return undefined;
  return (tokens * 1000) / (total_ms - first_token_ms);
}

/** What a screen reader hears of an answer's end. */
export function describeEnd(message: Message): string {
  const problem = problemOf(message);
  if (problem) return `The answer failed: ${describeError(problem)}`;
  return message.state === "cancelled" ? "The answer was stopped" : "The answer is complete";
}
