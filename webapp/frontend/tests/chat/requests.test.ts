/** Answers in progress, against a connection that loses, repeats and reorders. */

import assert from "node:assert/strict";
import test from "node:test";
import { type Conversation, Conversations, type Message } from "../../src/chat/conversations";
import type { Ack } from "../../src/chat/protocol";
import { Requests } from "../../src/chat/requests";

interface Sent {
  event: string;
  payload: { id: string; offset?: number; nonce?: string; messages?: { content: string }[]; thinking?: boolean };
}

class FakeConnection {
  connected = true;
  sent: Sent[] = [];
  acks: (Ack | "lost" | "closed")[] = [];
  async request(event: string, payload: object): Promise<Ack> {
    this.sent.push({ event, payload: payload as Sent["payload"] });
    const ack = this.acks.shift() ?? { ok: true };
    if (ack === "closed") this.connected = false;
    if (typeof ack === "string") throw new Error(ack);
    return ack;
  }
  received(id: string, offset: number): void {
    this.sent.push({ event: "received", payload: { id, offset } });
  }
  events() {
    return this.sent.map((s) => s.event);
  }
}

function memoryStorage(): Storage {
  const items = new Map<string, string>();
  return {
    get length() {
      return items.size;
    },
    key: (i) => [...items.keys()][i] ?? null,
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
    clear: () => items.clear(),
  };
}

const QUESTION: Message = { id: "q", role: "user", content: "hi", state: "finished", created_ms: 0 };

const LIMITS = { characters: 200, bytes: 2_000, messages: 2_000 };

function setUp(answer: Partial<Message> = {}, tab = "tab", before: Message[] = [QUESTION]) {
  const message: Message = {
    id: "a",
    role: "assistant",
    content: "",
    state: "queued",
    created_ms: Date.now(),
    model: "echo",
    writer: "tab",
    unsent: { system: "", sampling: {} },
    ...answer,
  };
  const conversation: Conversation = {
    id: "c",
    title: "t",
    model: "echo",
    system: "",
    updated_ms: 0,
    messages: [...before, message],
  };
  const conversations = new Conversations(
    memoryStorage(),
    () => undefined,
    () => undefined,
  );
  conversations.create(conversation);
  const connection = new FakeConnection();
  const requests = new Requests(connection, conversations, tab, LIMITS, () => undefined);
  const stored = () => conversations.get("c")?.messages.at(-1) as Message;
  return { conversation, conversations, connection, requests, message, stored };
}

const settled = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));
const tokens = (offset: number, text: string) => ({ id: "a", offset, nonce: "n", text });
const done = (offset: number) => ({ id: "a", status: "finished" as const, offset, code: "stop" });

test("a question is submitted, its answer applied and the end stored without leftovers", async () => {
  const { requests, connection, message, stored } = setUp();
  requests.begin("c", message);
  await settled();
  assert.deepEqual(connection.sent[0]?.payload.messages, [{ role: "user", content: "hi" }]);
  assert.equal(stored().unsent, undefined);
  requests.onTokens(tokens(0, "Hello"));
  requests.onDone(done(5));
  assert.equal(stored().content, "Hello");
  assert.equal(stored().state, "finished");
  assert.equal("nonce" in stored() || "writer" in stored(), false);
  assert.equal(requests.get("a"), undefined);
});

test("a question says whether to think if it was asked so", async () => {
  const { requests, connection, message } = setUp({ unsent: { system: "", sampling: {}, thinking: false } });
  requests.begin("c", message);
  await settled();
  assert.equal(connection.sent[0]?.payload.thinking, false);
  assert.equal("system" in (connection.sent[0]?.payload ?? {}), false);
});

test("a lost acknowledgement submits the same id again", async () => {
  const { requests, connection, message } = setUp();
  connection.acks = ["lost"];
  requests.begin("c", message);
  await settled(600);
  assert.deepEqual(connection.events(), ["submit", "submit"]);
  assert.equal(connection.sent[0]?.payload.id, connection.sent[1]?.payload.id);
});

test("a gap watches once from the cursor, however many events are ahead", async () => {
  const { requests, connection, message } = setUp();
  requests.begin("c", message);
  await settled();
  requests.onTokens(tokens(0, "ab😀"));
  for (const offset of [9, 10, 11]) requests.onTokens(tokens(offset, "x"));
  await settled();
  assert.deepEqual(connection.sent.slice(1), [{ event: "watch", payload: { id: "a", offset: 3, nonce: "n" } }]);
});

test("an end with missing text watches, then asks for all of it, and is believed the third time", async () => {
  const { requests, connection, message, stored } = setUp();
  requests.begin("c", message);
  await settled();
  requests.onTokens(tokens(0, "abc"));
  requests.onDone(done(9));
  await settled();
  requests.onDone(done(9));
  await settled();
  assert.deepEqual(
    connection.sent.slice(1).map((s) => s.payload.offset),
    [3, 0],
  );
  requests.onTokens(tokens(0, "abc"));
  requests.onDone(done(9));
  assert.equal(stored().state, "finished");
});

test("the window moves every 4096 code points, repeats included", async () => {
  const { requests, connection, message } = setUp();
  requests.begin("c", message);
  await settled();
  requests.onTokens(tokens(0, "😀".repeat(4000)));
  assert.equal(connection.events().includes("received"), false);
  requests.onTokens(tokens(4000, "x".repeat(100)));
  requests.onTokens(tokens(0, "😀".repeat(4096)));
  const offsets = connection.sent.filter((s) => s.event === "received").map((s) => s.payload.offset);
  assert.deepEqual(offsets, [4100, 4100]);
});

test("after a reload the stored cursor is watched; an expired answer ends with the part that came", async () => {
  const { requests, connection, conversation, stored } = setUp({
    content: "a😀",
    nonce: "n7",
    state: "running",
    unsent: undefined,
  });
  connection.acks = [{ ok: false, error: { code: "gone", message: "expired" } }];
  requests.follow(conversation, true);
  await settled();
  assert.deepEqual(connection.sent, [{ event: "watch", payload: { id: "a", offset: 2, nonce: "n7" } }]);
  assert.equal(stored().state, "failed");
  assert.equal(stored().error?.code, "gone");
  assert.equal(stored().content, "a😀");
});

test("a refused submit fails at once and keeps when to retry", async () => {
  const { requests, connection, message, stored } = setUp();
  connection.acks = [{ ok: false, error: { code: "busy", message: "full", retry_after_s: 5 } }];
  requests.begin("c", message);
  await settled();
  assert.equal(stored().state, "failed");
  assert.ok((stored().retry_at_ms ?? 0) > Date.now() + 4000);
});

test("offline nothing is sent; reconnecting attaches every open answer, and a stop asked for meanwhile is sent", async () => {
  const { requests, connection, message } = setUp();
  connection.connected = false;
  requests.begin("c", message);
  await requests.cancel("a");
  assert.deepEqual(connection.events(), []);
  connection.connected = true;
  requests.reattachAll();
  await settled();
  assert.deepEqual(connection.events(), ["submit", "cancel"]);
});

test("another tab waits until the writer's question is acknowledged, then watches, and never saves partial text", async () => {
  const { requests, conversations, connection, stored } = setUp({}, "other tab");
  requests.follow(conversations.get("c") as Conversation, false);
  await settled();
  assert.deepEqual(connection.events(), []);
  conversations.changeMessage("c", "a", (m) => delete m.unsent);
  requests.follow(conversations.get("c") as Conversation, false);
  requests.onTokens(tokens(0, "Hello"));
  requests.saveAll();
  assert.equal(stored().content, "");
  requests.onDone(done(5));
  assert.equal(stored().content, "Hello");
});

test("an answer that ended or was replaced in another tab is let go", async () => {
  const { requests, conversations, connection, message } = setUp();
  requests.begin("c", message);
  await settled();
  conversations.change("c", (c) => c.messages.pop());
  requests.follow(conversations.get("c") as Conversation, false);
  assert.equal(requests.get("a"), undefined);
  assert.equal(connection.events().at(-1), "unwatch");
});

const round = (n: number, more: Partial<Message> = {}): Message[] => [
  { ...QUESTION, id: `q${n}`, content: `question ${n}` },
  { ...QUESTION, id: `a${n}`, role: "assistant", content: `answer ${n}`, ...more },
];

test("a question that was stopped before its first word is not sent with the next one", async () => {
  const { requests, connection, message } = setUp({}, "tab", [
    ...round(1, { state: "cancelled", content: "" }),
    QUESTION,
  ]);
  requests.begin("c", message);
  await settled();
  assert.deepEqual(connection.sent[0]?.payload.messages, [{ role: "user", content: "hi" }]);
});

test("a message that the server cannot take is never sent, also not after a reload", async () => {
  const { requests, connection, conversation, stored } = setUp({}, "tab", [{ ...QUESTION, content: "x".repeat(201) }]);
  requests.follow(conversation, true);
  await settled();
  assert.deepEqual(connection.sent, []);
  assert.equal(stored().state, "failed");
  assert.equal(stored().error?.code, "content_too_large");
});

test("a message that ends the connection each time is not sent for ever", async () => {
  const { requests, connection, message, stored } = setUp();
  connection.acks = ["closed", "closed", "closed"];
  requests.begin("c", message);
  for (let attempt = 0; attempt < 6; attempt++) {
    await settled(attempt === 0 ? 5 : 520);
    connection.connected = true;
    requests.reattachAll();
  }
  assert.deepEqual(connection.events(), ["submit", "submit", "submit"]);
  assert.equal(stored().state, "failed");
  assert.equal(stored().error?.code, "connection_lost");
});

test("a stopped question that ended the connection is not sent again", async () => {
  const { requests, connection, message, stored } = setUp();
  connection.acks = ["closed", { ok: false, error: { code: "gone", message: "unknown" } }];
  requests.begin("c", message);
  await settled();
  await requests.cancel("a");
  await settled(520);
  connection.connected = true;
  requests.reattachAll();
  await settled();
  assert.deepEqual(connection.events(), ["submit", "cancel"]);
  assert.equal(stored().state, "cancelled");
});

test("where the model begins to read is kept, told while it answers or at the end", async () => {
  const context = { prompt_tokens: 90, context_tokens: 100, omitted_messages: 2 };
  const before = [...round(1), ...round(2), QUESTION];
  for (const live of [true, false]) {
    const { requests, message, stored } = setUp({}, "tab", before);
    requests.begin("c", message);
    await settled();
    if (live) requests.onStatus({ id: "a", state: "running", context });
    else requests.onDone({ ...done(0), usage: context });
    assert.deepEqual(stored().context, { first: "q2", omitted: 2, context_tokens: 100 });
  }
});

test("an answer that ended keeps its reasoning apart", () => {
  const { requests, conversation, message, stored } = setUp();
  requests.begin(conversation.id, message);
  requests.onTokens({ id: "a", offset: 0, nonce: "n", text: "hm", part: "reasoning" });
  requests.onTokens({ id: "a", offset: 2, nonce: "n", text: "4" });
  const parts: [number, string][] = [
    [0, "reasoning"],
    [2, "answer"],
  ];
  requests.onDone({ id: "a", status: "finished", offset: 3, code: "stop", parts });
  const { content, reasoning, thought_ms } = stored();
  assert.deepEqual([content, reasoning, typeof thought_ms], ["4", "hm", "number"]);
  assert.equal(stored().parts, undefined);
});

test("a page that is loaded again in the middle of the reasoning goes on there", () => {
  const first = setUp();
  first.requests.begin(first.conversation.id, first.message);
  first.requests.onTokens({ id: "a", offset: 0, nonce: "n", text: "hm", part: "reasoning" });
  first.requests.saveAll();
  const again = setUp({ ...first.stored(), unsent: undefined });
  again.requests.begin(again.conversation.id, again.stored());
  again.requests.onTokens({ id: "a", offset: 2, nonce: "n", text: ", so", part: "reasoning" });
  again.requests.onTokens({ id: "a", offset: 6, nonce: "n", text: "4" });
  again.requests.onDone({ id: "a", status: "cancelled", offset: 7, code: "cancelled" });
  assert.deepEqual([again.stored().content, again.stored().reasoning], ["4", "hm, so"]);
});
