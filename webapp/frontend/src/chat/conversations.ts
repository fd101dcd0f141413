/**
 * Conversations, kept in the browser under one localStorage key each. Several tabs share them, so no tab owns a copy:
 * `change` reads what is stored, edits it and writes it back in one synchronous step, which merges by message id.
 *
 * Objects that `get` and `list` return are read-only; edit inside `change`. A conversation that no longer fits the
 * storage lives in memory until it does, and `onFull` is told.
 */

import type { ServerError } from "../shared/errors";
import type { Part } from "./answer";
import type { EndStatus, Role, Sampling, Usage } from "./protocol";

export type MessageState = "queued" | "running" | EndStatus;

export interface Message {
  id: string;
  role: "user" | "assistant";
  content: string;
  state: MessageState;
  created_ms: number;
  model?: string;
  /** What the model thought before its answer, once that has ended; until then `content` is all text. */
  reasoning?: string;
  /** Of a partial answer: what of `content` is reasoning. */
  parts?: Part[];
  /** When the reasoning began, by the clock of this page, and how long it took. */
  thinkingSince_ms?: number;
  thought_ms?: number;
  /** The user has opened the reasoning. */
  reasoningOpen?: boolean;
  /** Cursor of a partial answer: the nonce that belongs to `content`. */
  nonce?: string;
  /** The tab that submitted it; only this one saves partial text. */
  writer?: string;
  /** What to submit, until the server acknowledged it. */
  unsent?: { system: string; sampling: Sampling; thinking?: boolean };
  error?: ServerError;
  retry_at_ms?: number;
  usage?: Partial<Usage>;
  /** Why a finished answer ended: `stop` or `length`. */
  code?: string;
  /** The model could not read all that was said before. */
  context?: Omission;
}

/** Of the messages before an answer, the model read those from `first` on. */
export interface Omission {
  first: string;
  omitted: number;
  context_tokens?: number;
}

export interface Conversation {
  id: string;
  title: string;
  model: string;
  system: string;
  updated_ms: number;
  messages: Message[];
}

const PREFIX = "chatserver.conversation.";

export class Conversations {
  private parsed = new Map<string, { raw: string; value: Conversation }>();
  private unsaved = new Map<string, Conversation>();

  /** `changed` hears of every change made here, `full(true)` when the storage refused a write, `full(false)` after. */
  constructor(
    private storage: Storage,
    private changed: (id: string) => void,
    private full: (isFull: boolean) => void,
  ) {}

  /** Newest first. */
  list(): Conversation[] {
    const ids = new Set(this.unsaved.keys());
    for (let i = 0; i < this.storage.length; i++) {
      const id = conversationIdOf(this.storage.key(i));
      if (id) ids.add(id);
    }
    return [...ids]
      .map((id) => this.get(id))
      .filter((c) => c !== undefined)
      .sort((a, b) => b.updated_ms - a.updated_ms);
  }

  get(id: string): Conversation | undefined {
    const unsaved = this.unsaved.get(id);
    if (unsaved) return unsaved;
    const raw = this.storage.getItem(PREFIX + id);
    if (raw === null) return undefined;
    const known = this.parsed.get(id);
    if (known?.raw === raw) return known.value;
    const value = parse(id, raw);
    if (value) this.parsed.set(id, { raw, value });
    return value;
  }

  create(conversation: Conversation): void {
    this.save(conversation);
  }

  /** Nothing happens when another tab has deleted it. */
  change(id: string, edit: (conversation: Conversation) => void): void {
    const stored = this.get(id);
    if (!stored) return;
    const copy = structuredClone(stored);
    edit(copy);
    this.save(copy);
  }

  changeMessage(id: string, messageId: string, edit: (message: Message) => void): void {
    const stored = this.get(id);
    if (!stored?.messages.some((m) => m.id === messageId)) return;
    this.change(id, (conversation) => {
      for (const message of conversation.messages) if (message.id === messageId) edit(message);
    });
  }

  remove(id: string): void {
    this.unsaved.delete(id);
    this.parsed.delete(id);
    this.storage.removeItem(PREFIX + id);
    for (const waiting of this.unsaved.values()) this.save(waiting);
    this.changed(id);
  }

  private save(conversation: Conversation): void {
    const raw = JSON.stringify(conversation);
    try {
      this.storage.setItem(PREFIX + conversation.id, raw);
      this.unsaved.delete(conversation.id);
      this.parsed.set(conversation.id, { raw, value: conversation });
      if (this.unsaved.size === 0) this.full(false);
    } catch {
      this.unsaved.set(conversation.id, conversation);
      this.full(true);
    }
    this.changed(conversation.id);
  }
}

/** The conversation that a storage key holds, or undefined for any other key. */
export function conversationIdOf(key: string | null): string | undefined {
  return key?.startsWith(PREFIX) ? key.slice(PREFIX.length) : undefined;
}

/** The file that "Export" gives: only what was said. */
export function exportOf({ id, title, model, system, messages }: Conversation) {
  const said: { role: Role; content: string }[] = messages
    .filter((m) => m.content.trim())
    .map(({ role, content }) => ({ role, content }));
  if (system.trim()) said.unshift({ role: "system", content: system });
  return { id, title, model, messages: said };
}

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

/**
 * A new conversation that carries what was said before an earlier question, to go on from there otherwise. The earlier
 * conversation stays as it is.
 */
export function branchBefore(messageId: string, of: Conversation, newId: () => string): Conversation {
  const before = of.messages.slice(
    0,
    Math.max(
      0,
      of.messages.findIndex(({ id }) => id === messageId),
    ),
  );
  const ids = new Map(before.map(({ id }) => [id, newId()]));
  const messages = before.map((message) => {
    const copy: Message = { ...message, id: ids.get(message.id) as string };
    if (copy.context) copy.context = { ...copy.context, first: ids.get(copy.context.first) ?? copy.context.first };
    return copy;
  });
  const question = 1 + before.filter(({ role }) => role === "user").length;
  const title = `Question ${question} edited: ${of.title.replace(/^Question \d+ edited: /, "")}`;
  return { ...of, id: newId(), title, messages };
}

function parse(id: string, raw: string): Conversation | undefined {
  try {
    const value = JSON.parse(raw) as Conversation;
    if (Array.isArray(value.messages)) return value;
  } catch {
    /* told below */
  }
  console.warn(`conversation ${id} in this browser's storage is unreadable; it is left alone`);
  return undefined;
}
