/** Conversations of earlier versions leave the browser only when the server has them. */

import assert from "node:assert/strict";
import test from "node:test";
import { KeptConversations } from "../../src/chat/kept";
import { ApiError } from "../../src/shared/http";
import { FakeStorage } from "./made";

function setUp(...sizes: number[]) {
  const storage = new FakeStorage();
  storage.setItem("chatserver.preferences", "{}");
  sizes.forEach((size, n) => {
    const messages = [{ id: `q${n}`, role: "user", content: "x".repeat(size) }];
    storage.setItem(`chatserver.conversation.c${n}`, JSON.stringify({ id: `c${n}`, messages }));
  });
  return { storage, kept: new KeptConversations(storage) };
}

test("what the server took is gone from the browser, the rest stays", async () => {
  const { kept } = setUp(1, 1, 1);
  const left = await kept.moveTo({ takeOver: async () => ({ taken: ["c0", "c2"] }) });
  assert.equal(left, 1);
  assert.deepEqual(
    kept.list().map(({ id }) => id),
    ["c1"],
  );
});

test("a failure leaves everything that was not taken", async () => {
  const { kept } = setUp(140_000, 140_000);
  let calls = 0;
  const takeOver = async () => {
    if (++calls > 1) throw new Error("away");
    return { taken: ["c0"] };
  };
  await assert.rejects(kept.moveTo({ takeOver }), /away/);
  assert.equal(kept.list().length, 1);
});

test("many conversations go in several requests, a large one alone", async () => {
  const { kept } = setUp(100_000, 40_000, 40_000, 300_000, 1);
  const sent: number[] = [];
  await kept.moveTo({
    takeOver: async (batch) => {
      sent.push(batch.length);
      return { taken: [] };
    },
  });
  assert.deepEqual(sent, [2, 1, 1, 1]);
});

test("one that is too large for the server stays and does not keep the others back", async () => {
  const { kept } = setUp(300_000, 1);
  const takeOver = async (batch: { id: string }[]) => {
    if (batch.some(({ id }) => id === "c0")) throw new ApiError(413, "content_too_large", "too large");
    return { taken: batch.map(({ id }) => id) };
  };
  assert.equal(await kept.moveTo({ takeOver: takeOver as never }), 1);
  assert.deepEqual(
    kept.list().map(({ id }) => id),
    ["c0"],
  );
});

test("unreadable and empty entries are left alone", () => {
  const { storage, kept } = setUp();
  storage.setItem("chatserver.conversation.bad", "{not json");
  storage.setItem("chatserver.conversation.empty", '{"id": "empty", "messages": []}');
  assert.deepEqual(kept.list(), []);
  assert.equal(storage.getItem("chatserver.conversation.bad"), "{not json");
});
