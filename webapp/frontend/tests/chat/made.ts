/** What several tests of the chat make: messages, conversations, a storage. */

import type { Conversation, Message } from "../../src/chat/tree";

/** Under the message before it in a list, see `chain`. */
export const message = (
  id: string,
  role: "user" | "assistant",
  content: string,
  more: Partial<Message> = {},
): Message => ({
  id,
  parent_id: null,
  role,
  content,
  reasoning: "",
  state: "finished",
  code: "",
  error: "",
  model: "echo",
  usage: null,
  extra: {},
  hidden: false,
  created_ms: 0,
  feedback: null,
  ...more,
});

/** Each message follows the one before it. */
export const chain = (...messages: Message[]): Message[] =>
  messages.map((one, i) => ({ ...one, parent_id: messages[i - 1]?.id ?? null }));

export const conversation = (id: string, messages: Message[] = [], more: Partial<Conversation> = {}): Conversation => ({
  id,
  title: id,
  model: "echo",
  folder: "",
  pinned: false,
  created_ms: 0,
  updated_ms: 0,
  running: false,
  system: "",
  settings: {},
  shared_as: null,
  current_id: messages.at(-1)?.id ?? null,
  messages,
  ...more,
});

export class FakeStorage implements Storage {
  private items = new Map<string, string>();
  limit = Infinity;
  get length() {
    return this.items.size;
  }
  key(index: number) {
    return [...this.items.keys()][index] ?? null;
  }
  getItem(key: string) {
    return this.items.get(key) ?? null;
  }
  removeItem(key: string) {
    this.items.delete(key);
  }
  clear() {
    this.items.clear();
  }
  setItem(key: string, value: string) {
    const used = [...this.items].reduce((sum, [k, v]) => sum + (k === key ? 0 : v.length), 0);
    if (used + value.length > this.limit) throw new Error("QuotaExceededError");
    this.items.set(key, value);
  }
}
