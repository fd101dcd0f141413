/** Questions that the server has not acknowledged: kept, shown, and never twice. */

import assert from "node:assert/strict";
import test from "node:test";
import { conversationOf, Outbox, type Unsent, withUnsent } from "../../src/chat/outbox";
import type { Ask } from "../../src/chat/protocol";
import { FakeStorage, message } from "./made";

const unsent = (id: string, ask: Partial<Ask> = {}, more: Partial<Unsent> = {}): Unsent => ({
  ask: { conversation: "c", id, parent: null, question: { id: `q-${id}`, content: "hi" }, model: "echo", ...ask },
  created_ms: 1,
  tab: "tab",
  ...more,
});

test("a question outlives its tab, and goes when it is acknowledged", () => {
  const storage = new FakeStorage();
  new Outbox(storage, () => undefined).put(unsent("a"));
  const later = new Outbox(storage, () => undefined);
  assert.equal(later.list("c")[0]?.ask.question?.content, "hi");
  assert.deepEqual(later.list("another"), []);
  later.remove("a");
  assert.deepEqual(later.list(), []);
});

test("a full storage is told, and the question waits in memory", () => {
  const storage = new FakeStorage();
  const told: boolean[] = [];
  storage.limit = 10;
  const outbox = new Outbox(storage, (isFull) => told.push(isFull));
  outbox.put(unsent("a"));
  assert.deepEqual(told, [true]);
  assert.equal(outbox.get("a")?.ask.id, "a");
});

test("what others wrote into the storage is left alone", () => {
  const storage = new FakeStorage();
  storage.setItem("chatserver.unsent.bad", "{not json");
  storage.setItem("other", "1");
  assert.deepEqual(new Outbox(storage, () => undefined).list(), []);
});

test("a question stands in its conversation with its answer to come", () => {
  const [question, answer] = withUnsent([], [unsent("a")]);
  assert.deepEqual([question?.id, question?.parent_id, question?.content], ["q-a", null, "hi"]);
  assert.deepEqual([answer?.id, answer?.parent_id, answer?.state, answer?.sending], ["a", "q-a", "open", true]);
});

test("a refused question is shown with its reason", () => {
  const [, answer] = withUnsent([], [unsent("a", {}, { problem: { code: "busy", message: "full" } })]);
  assert.deepEqual([answer?.state, answer?.problem?.code], ["unsent", "busy"]);
});

test("what the server knows already is not shown twice", () => {
  const known = [message("q-a", "user", "hi"), message("a", "assistant", "", { parent_id: "q-a", state: "unsent" })];
  assert.deepEqual(
    withUnsent(known, [unsent("a")]).map(({ id, state }) => [id, state]),
    [
      ["q-a", "finished"],
      ["a", "open"],
    ],
  );
});

test("an answer that continues another one begins with its text", () => {
  const begun = message("a", "assistant", "Once", { parent_id: "q", reasoning: "hm", state: "cancelled" });
  const { question: _, ...ask } = unsent("b", { parent: "q", continues: "a" }).ask;
  const [, next] = withUnsent([begun], [{ ...unsent("b"), ask }]);
  assert.deepEqual([next?.content, next?.reasoning, next?.parent_id], ["Once", "hm", "q"]);
  assert.equal(begun.state, "cancelled");
});

test("another tab learns which conversation changed", () => {
  const key = "chatserver.unsent.a";
  assert.equal(conversationOf({ key, oldValue: null, newValue: JSON.stringify(unsent("a")) }), "c");
  assert.equal(conversationOf({ key, oldValue: JSON.stringify(unsent("a")), newValue: null }), "c");
  assert.equal(conversationOf({ key: "other", oldValue: null, newValue: "1" }), undefined);
});
