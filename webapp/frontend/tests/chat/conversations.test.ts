/** The page's copy of the server's conversations: shown at once, taken back on a refusal, never behind what was done here. */

import assert from "node:assert/strict";
import test from "node:test";
import type { ApiClient, Change, Page } from "../../src/chat/api";
import { Conversations, endOf } from "../../src/chat/conversations";
import { Outbox } from "../../src/chat/outbox";
import { type Conversation, pathOf, type Summary } from "../../src/chat/tree";
import { ApiError } from "../../src/shared/http";
import { chain, conversation, FakeStorage, message } from "./made";

const ROUND = chain(message("q", "user", "hi"), message("a", "assistant", "hello"));

/** Answers from what it holds, or with `error`. */
class FakeServer {
  trees = new Map<string, Conversation>();
  changes: Change[] = [];
  error: ApiError | undefined;
  before: () => Promise<void> = async () => undefined;

  async list(folder: string): Promise<Page> {
    const conversations = [...this.trees.values()].filter((tree) => !folder || tree.folder === folder);
    return this.answer({ conversations, next: null, folders: ["work"] });
  }
  async get(id: string): Promise<Conversation> {
    const found = this.trees.get(id);
    if (!found) throw new ApiError(404, "not_found", "there is none");
    return this.answer(structuredClone(found));
  }
  async change(id: string, change: Change): Promise<Summary> {
    this.changes.push(change);
    return this.answer({ ...(this.trees.get(id) as Conversation), ...change });
  }
  async remove(id: string) {
    await this.get(id);
    return { undo_until_ms: 9 };
  }
  async restore(id: string): Promise<Summary> {
    return this.get(id);
  }
  async title(id: string): Promise<Summary> {
    return this.answer({ ...(this.trees.get(id) as Conversation), title: "named by the model" });
  }
  private async answer<T>(told: T): Promise<T> {
    await this.before();
    if (this.error) throw this.error;
    return told;
  }
}

function setUp(...trees: Conversation[]) {
  const server = new FakeServer();
  for (const tree of trees) server.trees.set(tree.id, tree);
  const outbox = new Outbox(new FakeStorage(), () => undefined);
  const told: string[] = [];
  const page = new Conversations(
    server as unknown as ApiClient,
    outbox,
    () => undefined,
    (words) => told.push(words),
  );
  return { server, outbox, page, told };
}

const ask = (id: string, parent: string | null = null, conversationId = "c") => ({
  ask: { conversation: conversationId, id, parent, question: { id: `q-${id}`, content: "and?" }, model: "echo" },
  created_ms: 5,
  tab: "tab",
});
const ids = (list: Summary[]) => list.map(({ id }) => id);

test("pinned conversations come first, then the newest", async () => {
  const { page } = setUp(
    conversation("old", [], { updated_ms: 1 }),
    conversation("new", [], { updated_ms: 2 }),
    conversation("pinned", [], { pinned: true }),
  );
  await page.refresh(undefined);
  assert.deepEqual(ids(page.list()), ["pinned", "new", "old"]);
});

test("a change is shown before the server has it, and taken back with a reason when the server refuses", async () => {
  const { server, page, told } = setUp(conversation("c", ROUND, { title: "before" }));
  await page.refresh(undefined);
  await page.load("c");
  server.error = new ApiError(503, "unavailable", "the database is away");
  const done = page.change("c", { title: "after" });
  assert.deepEqual([page.list()[0]?.title, page.get("c")?.title], ["after", "after"]);
  await done;
  assert.deepEqual([page.list()[0]?.title, page.get("c")?.title], ["before", "before"]);
  assert.deepEqual(told, ["The change was not kept: the database is away"]);
});

test("a list that was read before a change does not undo it", async () => {
  const { server, page } = setUp(conversation("c", ROUND, { title: "before" }));
  await page.refresh(undefined);
  server.before = async () => {
    server.before = async () => undefined;
    await page.change("c", { title: "after" });
  };
  await page.refresh(undefined);
  assert.equal(page.list()[0]?.title, "after");
});

test("a question stands in its conversation before the server knows of it, and outlives what the server tells", async () => {
  const { page } = setUp(conversation("c", ROUND));
  await page.load("c");
  const last = () => pathOf(page.get("c") as Conversation).at(-1)?.id;
  page.add(ask("a2", "a"));
  assert.equal(last(), "a2");
  await page.load("c");
  assert.equal(last(), "a2");
  assert.equal(page.list()[0]?.running, true);
});

test("nothing follows a question that the server does not have", async () => {
  const { page } = setUp(conversation("c", ROUND));
  await page.load("c");
  const { ask: asked } = ask("a2", "a");
  page.add(ask("a2", "a"));
  page.refused("c", "a2", { code: "content_too_large", message: "too large" });
  assert.equal(endOf(page.get("c") as Conversation), "a");
  page.acknowledged("c", asked, undefined);
  assert.equal(endOf(page.get("c") as Conversation), "a2");
});

test("a conversation that a question begins is there before the server knows of it, also after a reload", async () => {
  const { page, outbox, server } = setUp();
  page.add(ask("a", null, "new"));
  assert.deepEqual([page.get("new")?.title, page.get("new")?.messages.length], ["and?", 2]);
  await page.refresh("new");
  assert.deepEqual(ids(page.list()), ["new"]);
  const reloaded = new Conversations(
    server as unknown as ApiClient,
    outbox,
    () => undefined,
    () => undefined,
  );
  await reloaded.loadUnsent();
  assert.equal(reloaded.get("new")?.messages[0]?.content, "and?");
});

test("a question that is acknowledged while its conversation is asked for does not vanish", async () => {
  const { server, page } = setUp();
  page.add(ask("a", null, "new"));
  const read = page.load("new"); // the server answers that there is none
  server.trees.set(
    "new",
    conversation("new", chain(message("q-a", "user", "and?"), message("a", "assistant", "", { state: "open" }))),
  );
  page.acknowledged("new", ask("a", null, "new").ask, undefined);
  await read;
  assert.equal(page.get("new")?.messages.length, 2);
});

test("older conversations that were read stay, and the list knows its end", async () => {
  const { server, page } = setUp(conversation("new", [], { updated_ms: 2 }));
  const list = async (_: string, before?: string) =>
    before
      ? { conversations: [conversation("old", [], { updated_ms: 1 })], next: null, folders: [] }
      : { conversations: [conversation("new", [], { updated_ms: 2 })], next: "cursor", folders: [] };
  server.list = list as never;
  await page.refresh(undefined);
  assert.equal(page.hasMore, true);
  await page.loadMore();
  await page.refresh(undefined);
  assert.deepEqual([ids(page.list()), page.hasMore], [["new", "old"], false]);
});

test("a refused question that has no place on the server can be looked at beside the one that took its place", async () => {
  const { server, page } = setUp(conversation("c", ROUND));
  await page.load("c");
  page.add(ask("a2", "a"));
  page.refused("c", "a2", { code: "content_too_large", message: "too large" });
  page.show("c", "a2");
  page.show("c", "a");
  assert.deepEqual(server.changes, [{ current_id: "a" }]);
});

test("an answer whose end was heard stays ended until the server has written it down", async () => {
  const open = message("a", "assistant", "", { parent_id: "q", state: "open" });
  const { page, server } = setUp(conversation("c", [ROUND[0] as never, open]));
  await page.load("c");
  page.changeMessage("c", "a", (m) => Object.assign(m, { state: "finished", content: "hello" }));
  await page.load("c");
  assert.equal(page.get("c")?.messages[1]?.content, "hello");
  server.trees.set("c", conversation("c", ROUND));
  await page.load("c");
  assert.equal(page.get("c")?.messages[1]?.state, "finished");
});

test("a deleted conversation is gone at once, comes back when the server refuses, and can be restored", async () => {
  const { server, page, told } = setUp(conversation("c", ROUND));
  await page.refresh(undefined);
  server.error = new ApiError(0, "unreachable", "The server does not answer.");
  const refused = page.remove("c");
  assert.deepEqual(page.list(), []);
  assert.equal(await refused, undefined);
  assert.deepEqual([ids(page.list()), told.length], [["c"], 1]);
  server.error = undefined;
  assert.equal(await page.remove("c"), 9);
  assert.deepEqual(page.list(), []);
  await page.restore("c");
  assert.deepEqual(ids(page.list()), ["c"]);
});

test("what another device deleted goes, what it added comes", async () => {
  const { server, page } = setUp(conversation("c", ROUND));
  await page.refresh(undefined);
  server.trees.clear();
  server.trees.set("d", conversation("d", ROUND));
  await page.refresh(undefined);
  assert.deepEqual(ids(page.list()), ["d"]);
});

test("a conversation that is open is read anew when another device went on in it", async () => {
  const { server, page } = setUp(conversation("c", ROUND));
  await page.load("c");
  const more = chain(...ROUND, message("q2", "user", "more"));
  server.trees.set("c", conversation("c", more, { updated_ms: 7 }));
  await page.refresh("c");
  assert.equal(page.get("c")?.messages.length, 3);
});

test("a silent server leaves what is shown", async () => {
  const { server, page, told } = setUp(conversation("c", ROUND));
  await page.refresh(undefined);
  server.error = new ApiError(0, "unreachable", "The server does not answer.");
  await page.refresh(undefined);
  assert.deepEqual([ids(page.list()), told], [["c"], []]);
});

test("a title that the model wrote is shown in the list and in the conversation; a refusal keeps the old one", async () => {
  const { server, page, told } = setUp(conversation("c", ROUND, { title: "before" }));
  await page.refresh("c");
  server.error = new ApiError(503, "unavailable", "no time");
  await page.askTitle("c");
  assert.deepEqual([page.list()[0]?.title, told], ["before", ["The conversation keeps its title: no time"]]);
  server.error = undefined;
  await page.askTitle("c");
  assert.deepEqual([page.list()[0]?.title, page.get("c")?.title], ["named by the model", "named by the model"]);
});
