/** Answers in progress, against a connection that loses, repeats and reorders. */

import assert from "node:assert/strict";
import test from "node:test";
import type { ApiClient } from "../../src/chat/api";
import { Conversations } from "../../src/chat/conversations";
import { Outbox } from "../../src/chat/outbox";
import type { Ack, Ask } from "../../src/chat/protocol";
import { Requests } from "../../src/chat/requests";
import type { Conversation, Message } from "../../src/chat/tree";
import { ApiError } from "../../src/shared/http";
import { FakeStorage } from "./made";

interface Sent {
  event: string;
  payload: { id: string; offset?: number; nonce?: string; thinking?: boolean };
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

const LIMITS = { characters: 200, bytes: 2_000 };

/** One question in its conversation, which the server does not know. */
function setUp(ask: Partial<Ask> = {}, tab = "tab", storage = new FakeStorage()) {
  const outbox = new Outbox(storage, () => undefined);
  const loaded: string[] = [];
  const server = {
    get: async (id: string): Promise<Conversation> => {
      loaded.push(id);
      throw new ApiError(0, "unreachable", "away");
    },
  };
  const conversations = new Conversations(
    server as unknown as ApiClient,
    outbox,
    () => undefined,
    () => undefined,
  );
  const connection = new FakeConnection();
  const requests = new Requests(connection, conversations, outbox, tab, LIMITS, () => undefined);
  const question = { id: "q", content: "hi" };
  const unsent = {
    ask: { conversation: "c", id: "a", parent: null, question, model: "echo", ...ask },
    created_ms: Date.now(),
    tab: "tab",
  };
  conversations.add(unsent);
  const begin = () => requests.follow(conversations.get("c") as Conversation, true);
  const stored = () => conversations.get("c")?.messages.find(({ id }) => id === "a") as Message;
  return { conversations, connection, requests, outbox, unsent, loaded, begin, stored };
}

const settled = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));
const tokens = (offset: number, text: string) => ({ id: "a", offset, nonce: "n", text });
const done = (offset: number) => ({ id: "a", status: "finished" as const, offset, code: "stop" });

test("a question is asked, its answer applied and the end kept without leftovers", async () => {
  const { requests, connection, outbox, unsent, begin, stored } = setUp({ thinking: false });
  begin();
  await settled();
  assert.deepEqual(connection.sent[0], { event: "ask", payload: unsent.ask });
  assert.deepEqual([stored().sending, outbox.list()], [undefined, []]);
  requests.onTokens(tokens(0, "Hello"));
  requests.onDone(done(5));
  assert.deepEqual([stored().content, stored().state], ["Hello", "finished"]);
  assert.equal(requests.get("a"), undefined);
});

test("a lost acknowledgement asks the same again", async () => {
  const { connection, begin } = setUp();
  connection.acks = ["lost"];
  begin();
  await settled(600);
  assert.deepEqual(connection.events(), ["ask", "ask"]);
  assert.deepEqual(connection.sent[0]?.payload, connection.sent[1]?.payload);
});

test("a gap watches once from the cursor, however many events are ahead", async () => {
  const { requests, connection, begin } = setUp();
  begin();
  await settled();
  requests.onTokens(tokens(0, "ab😀"));
  for (const offset of [9, 10, 11]) requests.onTokens(tokens(offset, "x"));
  await settled();
  assert.deepEqual(connection.sent.slice(1), [{ event: "watch", payload: { id: "a", offset: 3, nonce: "n" } }]);
});

test("an end with missing text watches, then asks for all of it, and is believed the third time", async () => {
  const { requests, connection, begin, stored } = setUp();
  begin();
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
  const { requests, connection, begin } = setUp();
  begin();
  await settled();
  requests.onTokens(tokens(0, "😀".repeat(4000)));
  assert.equal(connection.events().includes("received"), false);
  requests.onTokens(tokens(4000, "x".repeat(100)));
  requests.onTokens(tokens(0, "😀".repeat(4096)));
  const offsets = connection.sent.filter((s) => s.event === "received").map((s) => s.payload.offset);
  assert.deepEqual(offsets, [4100, 4100]);
});

test("after a reload the whole answer is watched, and the server has the row of one that expired", async () => {
  const { connection, conversations, outbox, unsent, loaded, begin, stored } = setUp();
  conversations.acknowledged("c", unsent.ask, undefined);
  assert.equal(outbox.get("a"), undefined);
  connection.acks = [{ ok: false, error: { code: "gone", message: "expired" } }];
  begin();
  await settled();
  assert.deepEqual(connection.sent, [{ event: "watch", payload: { id: "a", offset: 0, nonce: "" } }]);
  assert.deepEqual([stored().state, loaded], ["open", ["c"]]);
});

test("a refused question waits for the user and keeps when to retry, over a reload too", async () => {
  const { connection, outbox, begin, stored } = setUp();
  connection.acks = [{ ok: false, error: { code: "busy", message: "full", retry_after_s: 5 } }];
  begin();
  await settled();
  assert.deepEqual([stored().state, stored().problem?.code], ["unsent", "busy"]);
  assert.ok((stored().retry_at_ms ?? 0) > Date.now() + 4000);
  begin();
  await settled();
  assert.deepEqual(connection.events(), ["ask"]);
  assert.equal(outbox.get("a")?.problem?.code, "busy");
});

test("offline nothing is sent; reconnecting attaches every open answer, and a stop asked for meanwhile is sent", async () => {
  const { requests, connection, begin } = setUp();
  connection.connected = false;
  begin();
  await requests.cancel("a");
  assert.deepEqual(connection.events(), []);
  connection.connected = true;
  requests.reattachAll();
  await settled();
  assert.deepEqual(connection.events(), ["ask", "cancel"]);
});

test("another tab leaves a question to the tab that asks it, for a while", async () => {
  const { requests, conversations, connection, outbox, unsent } = setUp({}, "other tab");
  const follow = (atStart: boolean) => requests.follow(conversations.get("c") as Conversation, atStart);
  follow(false);
  await settled();
  assert.deepEqual(connection.events(), []);
  outbox.put({ ...unsent, created_ms: Date.now() - 20_000 });
  follow(false);
  await settled();
  assert.deepEqual(connection.events(), ["ask"]);
});

test("an answer that ended elsewhere is let go", async () => {
  const { requests, conversations, connection, begin } = setUp();
  begin();
  await settled();
  conversations.changeMessage("c", "a", (m) => (m.state = "finished"));
  begin();
  assert.equal(requests.get("a"), undefined);
  assert.equal(connection.events().at(-1), "unwatch");
});

test("a message that the server cannot take is never sent, also not after a reload", async () => {
  const { connection, begin, stored } = setUp({ question: { id: "q", content: "x".repeat(201) } });
  begin();
  await settled();
  begin();
  await settled();
  assert.deepEqual(connection.sent, []);
  assert.deepEqual([stored().state, stored().problem?.code], ["unsent", "content_too_large"]);
});

test("a message that ends the connection each time is not sent for ever", async () => {
  const { requests, connection, begin, stored } = setUp();
  connection.acks = ["closed", "closed", "closed"];
  begin();
  for (let attempt = 0; attempt < 6; attempt++) {
    await settled(attempt === 0 ? 5 : 520);
    connection.connected = true;
    requests.reattachAll();
  }
  assert.deepEqual(connection.events(), ["ask", "ask", "ask"]);
  assert.deepEqual([stored().state, stored().problem?.code], ["unsent", "connection_lost"]);
});

test("a stopped question that ended the connection is not sent again", async () => {
  const { requests, connection, begin, stored } = setUp();
  connection.acks = ["closed", { ok: false, error: { code: "gone", message: "unknown" } }];
  begin();
  await settled();
  await requests.cancel("a");
  await settled(520);
  connection.connected = true;
  requests.reattachAll();
  await settled();
  assert.deepEqual(connection.events(), ["ask", "cancel"]);
  assert.deepEqual([stored().state, stored().problem?.code], ["unsent", "cancelled"]);
});

test("how much the model reads is kept, told while it answers or at the end", async () => {
  const context = { prompt_tokens: 90, context_tokens: 100, omitted_messages: 2 };
  for (const live of [true, false]) {
    const { requests, connection, begin, stored } = setUp();
    connection.acks = [{ ok: true, omitted: 4 }];
    begin();
    await settled();
    if (live) requests.onStatus({ id: "a", state: "running", context });
    else requests.onDone({ ...done(0), usage: context });
    assert.deepEqual([stored().usage, stored().extra], [context, { omitted: 4 }]);
  }
});

test("an answer that ended keeps its reasoning apart", async () => {
  const { requests, begin, stored } = setUp();
  begin();
  requests.onTokens({ id: "a", offset: 0, nonce: "n", text: "hm", part: "reasoning" });
  requests.onTokens({ id: "a", offset: 2, nonce: "n", text: "4" });
  const parts: [number, string][] = [
    [0, "reasoning"],
    [2, "answer"],
  ];
  requests.onDone({ id: "a", status: "finished", offset: 3, code: "stop", parts });
  const { content, reasoning, thought_ms } = stored();
  assert.deepEqual([content, reasoning, typeof thought_ms], ["4", "hm", "number"]);
});

test("an answer that goes on stands behind what it continues", async () => {
  const { requests, conversations, begin, stored } = setUp();
  conversations.changeMessage("c", "a", (m) => (m.content = "Once "));
  begin();
  requests.onTokens(tokens(0, "upon"));
  requests.onDone(done(4));
  assert.equal(stored().content, "Once upon");
});

test("a question that was never acknowledged is asked by the next page with the same ids", async () => {
  const storage = new FakeStorage();
  const first = setUp({}, "tab", storage);
  first.connection.connected = false;
  first.begin();
  const again = new Outbox(storage, () => undefined).list("c");
  assert.deepEqual(
    again.map(({ ask }) => ask),
    [first.unsent.ask],
  );
});
