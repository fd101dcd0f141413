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

const typed = (text: string) => ({ typed: text, attachments: [] });

test("each conversation has its own draft, and so has the one that is not begun", () => {
  const drafts = new Drafts(storage());
  drafts.set(undefined, typed("hello"));
  drafts.set("a", typed("and then?"));
  assert.deepEqual(
    [undefined, "a", "b"].map((id) => drafts.get(id).typed),
    ["hello", "and then?", ""],
  );
});

test("attached texts are kept with what is typed, and are gone with it", () => {
  const room = storage();
  const drafts = new Drafts(room);
  const attachments = [{ name: "notes.txt", text: "a\nb" }];
  drafts.set("a", { typed: "", attachments });
  drafts.set("a", { typed: "look", attachments });
  assert.deepEqual(new Drafts(room).get("a"), { typed: "look", attachments });
  drafts.set("a", typed(""));
  assert.equal(room.kept.size, 0);
});

test("an empty draft leaves nothing behind, a full storage breaks nothing", () => {
  const room = storage(5);
  const drafts = new Drafts(room);
  drafts.set("a", typed("short"));
  drafts.set("a", typed(""));
  drafts.set("b", typed("too long"));
  drafts.set("c", { typed: "", attachments: [{ name: "n", text: "too long" }] });
  assert.equal(room.kept.size, 0);
});
