/** Sizes and times in words. */

import assert from "node:assert/strict";
import test from "node:test";
import { age, bytes, duration } from "../../src/shared/amounts";

test("sizes have three digits at most, and no unit is past 999", () => {
  assert.deepEqual([1, 999, 1000, 999_499, 999_500, 12_345_678, 2_147_483_648].map(bytes), [
    "1 byte",
    "999 bytes",
    "1.0 kB",
    "999 kB",
    "1.0 MB",
    "12 MB",
    "2.1 GB",
  ]);
});

test("times are as exact as one needs", () => {
  assert.deepEqual([-5, 59.4, 60, 61, 599, 601, 3_599, 3_600, 5_400].map(duration), [
    "0 s",
    "59 s",
    "1 min",
    "1 min 1 s",
    "9 min 59 s",
    "10 min",
    "60 min",
    "1 h",
    "1 h 30 min",
  ]);
  assert.deepEqual([-3, 44, 90, 7_200, 86_400, 200_000].map(age), [
    "just now",
    "just now",
    "2 min ago",
    "2 h ago",
    "1 day ago",
    "2 days ago",
  ]);
});
