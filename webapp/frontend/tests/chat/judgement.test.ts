/** What a reader's judgement becomes on the page before the server has it. */

import assert from "node:assert/strict";
import test from "node:test";
import { feedbackOf } from "../../src/chat/judgement";

test("a judgement is shown as the server will tell it, and one that is taken back is none", () => {
  assert.deepEqual(feedbackOf({ verdict: "up" }), { verdict: "up", reason: "", better: "" });
  assert.deepEqual(feedbackOf({ verdict: "correction", better: "4", reason: "wrong sum" }), {
    verdict: "correction",
    reason: "wrong sum",
    better: "4",
  });
  assert.equal(feedbackOf({ verdict: "none" }), null);
});
