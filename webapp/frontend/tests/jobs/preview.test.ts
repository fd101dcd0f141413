/** What a preview says while it is awaited. */

import assert from "node:assert/strict";
import test from "node:test";
import { waitingWords } from "../../src/jobs/preview_view";

test("a preview that nobody begins names who is missing, and one that is read does not", () => {
  assert.equal(waitingWords("waiting", 1_000), "Reading the data…");
  assert.match(waitingWords("waiting", 11_000), /chatserver pipelines trainings/);
  assert.equal(waitingWords("running", 60_000), "Reading the data…");
});
