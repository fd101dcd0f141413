/** Which path through the versions of a conversation is shown. */

import assert from "node:assert/strict";
import test from "node:test";
import { leafOf, pathOf, problemOf, shownOf, titleFrom, versionsOf } from "../../src/chat/tree";
import { chain, conversation, message } from "./made";

const [q1, a1, q2, a2] = chain(
  message("q1", "user", "one"),
  message("a1", "assistant", "1"),
  message("q2", "user", "two"),
  message("a2", "assistant", "2"),
) as [never, never, never, never];
const again = message("a1b", "assistant", "1 again", { parent_id: "q1" });
const edited = message("q1b", "user", "one, edited");
const all = [q1, a1, q2, a2, again, edited];
const ids = (current_id: string | null, messages = all) => pathOf({ messages, current_id }).map(({ id }) => id);

test("the path leads from the first message to the newest one under the current one", () => {
  assert.deepEqual(ids("a2"), ["q1", "a1", "q2", "a2"]);
  assert.deepEqual(ids("a1"), ["q1", "a1", "q2", "a2"]);
  assert.deepEqual(ids("a1b"), ["q1", "a1b"]);
  assert.deepEqual(ids("q1b"), ["q1b"]);
});

test("without a current message, or with an unknown one, the newest path is shown", () => {
  assert.deepEqual(ids(null), ["q1b"]);
  assert.deepEqual(ids("nobody", [q1, a1, again]), ["q1", "a1b"]);
  assert.deepEqual(ids("nobody", []), []);
});

test("a broken tree ends the walk", () => {
  const circle = [message("x", "user", "", { parent_id: "y" }), message("y", "assistant", "", { parent_id: "x" })];
  assert.ok(ids("x", circle).length <= 3);
});

test("versions are messages of one role under one parent, oldest first", () => {
  assert.deepEqual(versionsOf(all, again), { index: 1, ids: ["a1", "a1b"] });
  assert.deepEqual(versionsOf(all, q1), { index: 0, ids: ["q1", "q1b"] });
  assert.deepEqual(versionsOf(all, q2), { index: 0, ids: ["q2"] });
  assert.equal(leafOf(all, "a1"), "a2");
});

test("what another program hid stays on the path and out of sight", () => {
  const messages = chain(message("s", "user", "context", { hidden: true }), message("q", "user", "hi"));
  const path = pathOf(conversation("c", messages));
  assert.deepEqual([path.length, shownOf(path).map(({ id }) => id)], [2, ["q"]]);
});

test("a failed answer has its reason, and a question that is in no queue says so", () => {
  const failed = message("a", "assistant", "", { state: "failed", code: "internal", error: "It broke." });
  assert.deepEqual(problemOf(failed), { code: "internal", message: "It broke." });
  assert.match(problemOf(message("a", "assistant", "", { state: "unsent" }))?.message ?? "", /Ask it again/);
  assert.equal(problemOf(message("a", "assistant", "", { state: "open" })), undefined);
});

test("a title is the first line, cut at a word", () => {
  assert.equal(titleFrom("  Hello\nworld"), "Hello");
  assert.equal(titleFrom(" "), "New chat");
  assert.equal(
    titleFrom("one two three four five six seven eight nine ten eleven"),
    "one two three four five six seven eight nine…",
  );
});
