/** Conversations shared by several tabs through one storage. */

import assert from "node:assert/strict";
import test from "node:test";
import {
  branchBefore,
  type Conversation,
  Conversations,
  exportOf,
  type Message,
  titleFrom,
} from "../../src/chat/conversations";

class FakeStorage implements Storage {
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

const message = (id: string, role: "user" | "assistant", content: string, more: Partial<Message> = {}): Message => ({
  id,
  role,
  content,
  state: "finished",
  created_ms: 0,
  ...more,
});
const conversation = (id: string, messages: Message[] = []): Conversation => ({
  id,
  title: id,
  model: "m",
  system: "",
  updated_ms: 0,
  messages,
});

function tab(storage: Storage) {
  const fulls: boolean[] = [];
  return {
    fulls,
    store: new Conversations(
      storage,
      () => undefined,
      (isFull) => fulls.push(isFull),
    ),
  };
}

test("two tabs that change one conversation keep both changes", () => {
  const storage = new FakeStorage();
  const [one, two] = [tab(storage).store, tab(storage).store];
  one.create(conversation("c", [message("q", "user", "hi"), message("a", "assistant", "", { state: "running" })]));
  two.get("c");
  one.changeMessage("c", "a", (m) => (m.content = "partial"));
  two.change("c", (c) => (c.title = "renamed"));
  one.changeMessage("c", "a", (m) => (m.content = "partial and more"));
  assert.equal(one.get("c")?.title, "renamed");
  assert.equal(two.get("c")?.messages[1]?.content, "partial and more");
});

test("a deleted conversation does not come back when its answer ends", () => {
  const storage = new FakeStorage();
  const [one, two] = [tab(storage).store, tab(storage).store];
  one.create(conversation("c", [message("a", "assistant", "")]));
  two.remove("c");
  one.changeMessage("c", "a", (m) => (m.content = "late"));
  assert.equal(one.get("c"), undefined);
  assert.deepEqual(one.list(), []);
});

test("a full storage is told, the conversation lives on in memory, and deleting another one saves it", () => {
  const storage = new FakeStorage();
  const { store, fulls } = tab(storage);
  store.create(conversation("old", [message("q", "user", "x".repeat(500))]));
  storage.limit = 800;
  store.create(conversation("new", [message("q", "user", "y".repeat(400))]));
  assert.equal(fulls.at(-1), true);
  store.change("new", (c) => (c.title = "still here"));
  assert.equal(store.get("new")?.title, "still here");
  assert.equal(store.list().length, 2);
  store.remove("old");
  assert.equal(fulls.at(-1), false);
  assert.equal(tab(storage).store.get("new")?.title, "still here");
});

test("an unreadable entry is skipped and left alone", () => {
  const storage = new FakeStorage();
  storage.setItem("chatserver.conversation.bad", "{not json");
  storage.setItem("other", "1");
  const { store } = tab(storage);
  store.create(conversation("good"));
  assert.deepEqual(
    store.list().map((c) => c.id),
    ["good"],
  );
  assert.equal(storage.getItem("chatserver.conversation.bad"), "{not json");
});

test("an export holds what was said and nothing of ours", () => {
  const c = conversation("c", [message("1", "user", "q"), message("2", "assistant", "", { state: "failed" })]);
  assert.deepEqual(exportOf(c), { id: "c", title: "c", model: "m", messages: [{ role: "user", content: "q" }] });
});

test("a title is the first line, cut at a word", () => {
  assert.equal(titleFrom("  Hello\nworld"), "Hello");
  assert.equal(titleFrom(" "), "New chat");
  assert.equal(
    titleFrom("one two three four five six seven eight nine ten eleven"),
    "one two three four five six seven eight nine…",
  );
});

test("an earlier question is edited in a conversation of its own, and the old one stays whole", () => {
  const of = conversation("c", [
    message("q1", "user", "one"),
    message("a1", "assistant", "1", { context: { first: "q1", omitted: 2 } }),
    message("q2", "user", "two"),
    message("a2", "assistant", "2"),
    message("q3", "user", "three"),
  ]);
  of.title = "Rivers";
  const stored = structuredClone(of);
  let id = 0;
  const branch = branchBefore("q2", of, () => `new${++id}`);
  assert.deepEqual(of, stored);
  assert.equal(branch.title, "Question 2 edited: Rivers");
  assert.deepEqual(
    branch.messages.map(({ id, content }) => [id, content]),
    [
      ["new1", "one"],
      ["new2", "1"],
    ],
  );
  assert.equal(branch.messages[1]?.context?.first, "new1");
  assert.equal(branchBefore("new1", branch, () => "x").title, "Question 1 edited: Rivers");
});
