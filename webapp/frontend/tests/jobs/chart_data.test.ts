/** What a chart gives uPlot: every step and value, axes that hold them, round words at the ticks. */

import assert from "node:assert/strict";
import test from "node:test";
import { columns, rangeOf, STEP_INCREMENTS, smoothedCurve, tickLabels } from "../../src/jobs/chart_data";
import { scientific } from "../../src/jobs/training_words";

const point = (x: number, y: number) => ({ x, y });

test("a value stands at its own step, also where another curve or a mark has none", () => {
  const training = [point(10, 3), point(20, 2)];
  const [steps, ...curves] = columns([training, [point(15, 2.5), point(20, 2.1)]], [{ x: 12, text: "resumed" }]);
  assert.deepEqual(Array.from(steps), [10, 12, 15, 20]);
  assert.deepEqual(curves, [
    [3, undefined, undefined, 2],
    [undefined, undefined, 2.5, 2.1],
  ]);
});

test("a chart without values has its marks, and one without anything is empty", () => {
  assert.deepEqual(columns([[], []], [{ x: 7, text: "resumed" }]), [[7], [undefined], [undefined]]);
  assert.deepEqual(columns([[]], []), [[], []]);
});

test("a smoothed curve has the steps of its own", () => {
  const curve = smoothedCurve(Array.from({ length: 100 }, (_, index) => point(10 * index, index % 2)));
  assert.deepEqual([curve.length, curve[0]?.x, curve[99]?.x], [100, 0, 990]);
  assert.ok(curve.slice(20, 80).every(({ y }) => Math.abs(y - 0.5) < 0.2));
});

test("an axis holds all values and leaves them most of its room", () => {
  for (const [low, high] of [
    [0, 1],
    [3.2, 3.3],
    [-4, 7],
    [1e-9, 2e-9],
    [0.5, 12_345],
  ] as const) {
    const [min, max] = rangeOf(low, high, false);
    assert.ok(min <= low && max >= high && high - low > 0.6 * (max - min), `${low} to ${high}: ${min} to ${max}`);
  }
});

test("an axis of one value has room on both sides, and one without values is drawn too", () => {
  const [min, max] = rangeOf(2.5, 2.5, false);
  assert.ok(min < 2.5 && max > 2.5);
  assert.deepEqual(rangeOf(null, null, false), [0, 1]);
});

test("an axis from zero begins there", () => {
  assert.equal(rangeOf(790, 830, true)[0], 0);
  assert.ok(rangeOf(790, 830, true)[1] >= 830);
  assert.equal(rangeOf(1e-6, 1e-4, true)[0], 0);
  assert.deepEqual(rangeOf(0, 0, true), [0, 1]);
});

test("steps are whole", () => {
  assert.ok(STEP_INCREMENTS.every(Number.isInteger));
  assert.deepEqual(STEP_INCREMENTS.slice(0, 5), [1, 2, 5, 10, 20]);
});

test("labels of an axis have as many decimals as they need", () => {
  assert.deepEqual(tickLabels([1, 1.5, 2]), ["1.0", "1.5", "2.0"]);
  assert.deepEqual(tickLabels([0, 500, 1000]), ["0", "500", "1,000"]);
  assert.deepEqual(tickLabels([0, 10_000, 20_000]), ["0", "10k", "20k"]);
  assert.deepEqual(tickLabels([0, 1e-5, 2e-5]), ["0", "1e-5", "2e-5"]);
  assert.deepEqual([2e-5, 0.00015, 0].map(scientific), ["2e-5", "1.5e-4", "0"]);
});
