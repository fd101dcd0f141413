/** Smoothing that does not lie. */

import assert from "node:assert/strict";
import test from "node:test";
import { smoothed, smoothingOf } from "../../src/jobs/smoothing";

test("smoothing keeps a constant, and a line in its middle", () => {
  const flat = Array.from({ length: 50 }, () => 2);
  assert.ok(smoothed(flat, 0.9).every((value) => Math.abs(value - 2) < 1e-9));
  const line = smoothed(
    Array.from({ length: 201 }, (_, x) => 3 - x / 100),
    0.8,
  );
  assert.ok(Math.abs((line[100] as number) - 2) < 1e-6);
});

test("each value is drawn as it is while there are few, and smoothed more the more there are", () => {
  assert.deepEqual(smoothed([3, 1, 2], smoothingOf(3)), [3, 1, 2]);
  assert.equal(smoothingOf(5), 0);
  assert.ok(smoothingOf(2000) > smoothingOf(100) && smoothingOf(1e6) < 1);
});
