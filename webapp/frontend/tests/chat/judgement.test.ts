/** What a reader's judgement becomes on the page before the server has it. */

import assert from "node:assert/strict";
import test from "node:test";
import { feedbackOf, said, thumbed } from "../../src/chat/judgement";

test("a judgement is shown as the server will tell it, and one that is taken back is none", () => {
  assert.deepEqual(feedbackOf({ verdict: "up" }), { verdict: "up", reason: "", better: "" });
  assert.deepEqual(feedbackOf({ verdict: "correction", better: "4", reason: "wrong sum" }), {
    verdict: "correction",
    reason: "wrong sum",
    better: "4",
  });
  assert.equal(feedbackOf({ verdict: "none" }), null);
});

test("words do not replace a thumb down, nor a thumb down the words", () => {
  const down = { verdict: "down" as const, reason: "", better: "" };
  assert.deepEqual(said(down, "too long", ""), { verdict: "down", reason: "too long" });
  assert.deepEqual(said(down, "", "4"), { verdict: "down", better: "4" });
  const flag = { verdict: "flag" as const, reason: "too long", better: "" };
  assert.deepEqual(thumbed(flag, "down"), { verdict: "down", reason: "too long" });
  assert.deepEqual(thumbed(flag, "up"), { verdict: "up" });
});

test("words without a thumb down are a flag, or a correction; a thumb again is taken back", () => {
  assert.deepEqual(said(null, "why?", ""), { verdict: "flag", reason: "why?" });
  assert.deepEqual(said({ verdict: "up", reason: "", better: "" }, "why?", "4"), {
    verdict: "correction",
    reason: "why?",
    better: "4",
  });
  assert.equal(said(null, "", ""), undefined);
  assert.deepEqual(thumbed({ verdict: "down", reason: "why?", better: "" }, "down"), { verdict: "none" });
  assert.deepEqual(thumbed(null, "up"), { verdict: "up" });
});
