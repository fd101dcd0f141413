/**
 * A conversation as the server keeps it: messages that know their parent only. A question that was edited and an answer
 * that was made again are siblings, its *versions*; what the page shows is one *path* through them. Pure.
 */

import type { ServerError } from "../shared/errors";
import type { EndStatus, Role, Sampling, Usage } from "./protocol";

/** Of a conversation: what the sidebar shows. */
export interface Summary {
  id: string;
  title: string;
  model: string;
  folder: string;
  pinned: boolean;
  created_ms: number;
  updated_ms: number;
  /** An answer is under way. */
  running: boolean;
}

export interface Conversation extends Summary {
  system: string;
  settings: ConversationSettings;
  /** The message at the end of the path that was looked at last. */
  current_id: string | null;
  /** The secret of its read-only link. */
  shared_as: string | null;
  /** All versions, oldest first. */
  messages: Message[];
}

export interface ConversationSettings {
  sampling?: Sampling;
  thinking?: boolean;
}

/** `unsent`: the queue has not accepted it. `open`: the answer is still to come, its text by the socket. */
export type MessageState = "unsent" | "open" | EndStatus;

export interface Message {
  id: string;
  parent_id: string | null;
  role: Role;
  /** Of an open answer: the text of the answer that it continues. */
  content: string;
  reasoning: string;
  state: MessageState;
  /** Why an answer ended: `stop`, `length`, or the code of its error. */
  code: string;
  /** The words of a failure. */
  error: string;
  model: string;
  usage: Partial<Usage> | null;
  extra: { omitted?: number; moderation?: { question?: string; answer?: string } };
  hidden: boolean;
  created_ms: number;
  feedback: Feedback | null;
  /** Of this page alone: the server has not acknowledged it. */
  sending?: boolean;
  /** Of this page alone: the server has no such message, so nothing can follow it. */
  local?: boolean;
  /** Of this page alone: the error with its remedy, and when to retry. */
  problem?: ServerError;
  retry_at_ms?: number;
  /** Of this page alone: how long the model thought. */
  thought_ms?: number;
}

export type Verdict = "up" | "down" | "flag" | "correction" | "none";

export interface Feedback {
  verdict: Verdict;
  reason: string;
  better: string;
}

/** Where a message stands among its versions; `ids` are all of them, oldest first. */
export interface Versions {
  index: number;
  ids: string[];
}

/** From the first message to the newest one under the current one. */
export function pathOf({ messages, current_id }: Pick<Conversation, "messages" | "current_id">): Message[] {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const path: Message[] = [];
  let message = byId.get(leafOf(messages, current_id) ?? "");
  while (message && path.length <= messages.length) {
    path.unshift(message);
    message = byId.get(message.parent_id ?? "");
  }
  return path;
}

/** The newest message under `id`, by the newest child each time; without one known, under the newest first message. */
export function leafOf(messages: Message[], id: string | null): string | null {
  const newestChild = new Map(messages.map((message) => [message.parent_id, message.id]));
  let leaf = messages.some((message) => message.id === id) ? id : (newestChild.get(null) ?? null);
  for (let n = 0; n < messages.length; n++) {
    const child: string | undefined = newestChild.get(leaf);
    if (child === undefined) break;
    leaf = child;
  }
  return leaf;
}

export function versionsOf(messages: Message[], of: Message): Versions {
  const ids = messages
    .filter(({ parent_id, role, hidden }) => parent_id === of.parent_id && role === of.role && !hidden)
    .map(({ id }) => id);
  return { index: ids.indexOf(of.id), ids };
}

/** What people see of a path. */
export function shownOf(path: Message[]): Message[] {
  return path.filter(({ role, hidden }) => !hidden && (role === "user" || role === "assistant"));
}

export function isOpen({ state }: Pick<Message, "state">): boolean {
  return state === "open";
}

/** What went wrong with an answer, if anything did. */
export function problemOf({ state, problem, code, error }: Message): ServerError | undefined {
  if (state !== "failed" && state !== "unsent") return undefined;
  if (problem) return problem;
  return { code: code || state, message: error || (state === "unsent" ? NOT_SENT : "The request failed.") };
}

const NOT_SENT = "This question is not in the queue of a model. Ask it again.";

/** A title from the first question: its first line, cut at a word. */
export function titleFrom(text: string, max = 48): string {
  const line =
    text
      .trim()
      .split("\n")[0]
      ?.replace(/^[#>*\s-]+/, "")
      .replace(/\s+/g, " ") ?? "";
  const letters = Array.from(line);
  if (letters.length <= max) return line || "New chat";
  const cut = letters.slice(0, max).join("");
  return `${cut.slice(0, cut.lastIndexOf(" ") > max / 2 ? cut.lastIndexOf(" ") : undefined)}…`;
}
