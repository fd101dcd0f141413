/** What people read of an error. */

import assert from "node:assert/strict";
import test from "node:test";
import { describeError } from "../../src/shared/errors";

test("an error is told with its remedy", () => {
  assert.equal(describeError({ message: "no room" }), "no room");
  const wanting = { message: "no cloud is set up", remedy: "run `sky check`" };
  assert.equal(describeError(wanting), "no cloud is set up. Remedy: run `sky check`");
});
