/** A draft belongs to its conversation. */

import assert from "node:assert/strict";
import test from "node:test";
import { Drafts } from "../../src/chat/drafts";

function storage(room = Number.POSITIVE_INFINITY) {
  const kept = new Map<string, string>();
  return {
    kept,
    getItem: (key: string) => kept.get(key) ?? null,
    removeItem: (key: string) => void kept.delete(key),
    setItem: (key: string, value: string) => {
      if (value.length > room) throw new DOMException("full", "QuotaExceededError");
      kept.set(key, value);
    },
  };
}

test("each conversation has its own draft, and so has the one that is not begun", () => {
  const drafts = new Drafts(storage());
  drafts.set(undefined, "hello");
  drafts.set("a", "and then?");
  assert.deepEqual([drafts.get(undefined), drafts.get("a"), drafts.get("b")], ["hello", "and then?", ""]);
});

test("an empty draft leaves nothing behind, a full storage breaks nothing", () => {
  const room = storage(5);
  const drafts = new Drafts(room);
  drafts.set("a", "short");
  drafts.set("a", "");
  drafts.set("b", "too long");
  assert.equal(room.kept.size, 0);
});
