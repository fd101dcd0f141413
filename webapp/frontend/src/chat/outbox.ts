/**
 * Questions that the server has not acknowledged, in this browser's storage: neither a lost connection nor a closed tab
 * loses one. Each is sent again as it is, with the same ids, which the server takes as the same question. One that was
 * refused stays too, with the reason, until the user sends it again.
 */

import type { ServerError } from "../shared/errors";
import type { Ask } from "./protocol";
import type { Message } from "./tree";

export interface Unsent {
  ask: Ask;
  created_ms: number;
  /** The tab that sends it; the others do so when that one has gone. */
  tab: string;
  problem?: ServerError;
  retry_at_ms?: number;
}

const PREFIX = "chatserver.unsent.";

export class Outbox {
  private inMemory = new Map<string, Unsent>();

  /** `full` hears whether the storage refused a question, which is then kept in memory alone. */
  constructor(
    private storage: Storage,
    private full: (isFull: boolean) => void,
  ) {}

  put(unsent: Unsent): void {
    const { id } = unsent.ask;
    try {
      this.storage.setItem(PREFIX + id, JSON.stringify(unsent));
      this.inMemory.delete(id);
    } catch {
      this.inMemory.set(id, unsent);
      this.full(true);
    }
  }

  get(id: string): Unsent | undefined {
    return this.inMemory.get(id) ?? parse(this.storage.getItem(PREFIX + id));
  }

  remove(id: string): void {
    this.inMemory.delete(id);
    this.storage.removeItem(PREFIX + id);
  }

  removeAllOf(conversationId: string): void {
    for (const { ask } of this.list(conversationId)) this.remove(ask.id);
  }

  /** Oldest first. */
  list(conversationId?: string): Unsent[] {
    const keys = Array.from({ length: this.storage.length }, (_, i) => this.storage.key(i) ?? "");
    const stored = keys.filter((key) => key.startsWith(PREFIX)).map((key) => parse(this.storage.getItem(key)));
    return [...stored, ...this.inMemory.values()]
      .filter((unsent) => unsent !== undefined)
      .filter(({ ask }) => !conversationId || ask.conversation === conversationId)
      .sort((a, b) => a.created_ms - b.created_ms);
  }
}

/** Of a change in the storage made by another tab: the conversation of the question that came or went. */
export function conversationOf({ key, oldValue, newValue }: Pick<StorageEvent, "key" | "oldValue" | "newValue">) {
  return key?.startsWith(PREFIX) ? parse(newValue ?? oldValue)?.ask.conversation : undefined;
}

function parse(raw: string | null): Unsent | undefined {
  if (raw === null) return undefined;
  try {
    const value = JSON.parse(raw) as Unsent;
    return value.ask?.id ? value : undefined;
  } catch {
    return undefined;
  }
}

/** What the server told of a conversation, and in it the questions that it has not acknowledged, with their answers. */
export function withUnsent(messages: Message[], unsents: Unsent[]): Message[] {
  const byId = new Map(messages.map((message) => [message.id, message]));
  for (const unsent of unsents)
    for (const message of messagesOf(unsent, byId))
      byId.set(message.id, { ...(byId.get(message.id) ?? { local: true }), ...message });
  return [...byId.values()];
}

function messagesOf({ ask, created_ms, problem, retry_at_ms }: Unsent, known: Map<string, Message>): Message[] {
  const { question, parent } = ask;
  const continued = known.get(ask.continues ?? "");
  const blank = {
    reasoning: "",
    code: "",
    error: "",
    usage: null,
    extra: {},
    hidden: false,
    created_ms,
    feedback: null,
  };
  const answer: Message = {
    ...blank,
    id: ask.id,
    parent_id: question?.id ?? parent,
    role: "assistant",
    content: continued?.content ?? "",
    reasoning: continued?.reasoning ?? "",
    model: ask.model,
    state: problem ? "unsent" : "open",
    sending: !problem,
    ...(problem && { problem }),
    ...(retry_at_ms && { retry_at_ms }),
  };
  if (!question) return [answer];
  return [{ ...blank, ...question, parent_id: parent, role: "user", model: "", state: "finished" }, answer];
}
