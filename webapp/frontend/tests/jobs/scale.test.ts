/** The arithmetic of the curves: round ticks, smoothing that does not lie, points that are found and none that is lost. */

import assert from "node:assert/strict";
import test from "node:test";
import {
  nearest,
  niceAxis,
  scientific,
  smoothed,
  smoothingOf,
  thinned,
  tickLabels,
  tightAxis,
} from "../../src/jobs/scale";

test("ticks are round numbers around all values", () => {
  assert.deepEqual(niceAxis(1.13, 2.94, 5), { min: 1, max: 3, ticks: [1, 1.5, 2, 2.5, 3] });
  assert.deepEqual(niceAxis(0, 2e-5, 2).ticks, [0, 1e-5, 2e-5]);
  for (const [low, high] of [
    [0, 1],
    [3.2, 3.3],
    [-4, 7],
    [1e-9, 2e-9],
    [0.5, 12_345],
  ] as const) {
    const { min, max, ticks } = niceAxis(low, high, 5);
    assert.ok(min <= low && max >= high && ticks.length >= 3 && ticks.length <= 8, `${low} to ${high}: ${ticks}`);
  }
});

test("an axis of one value has room on both sides", () => {
  const { min, max } = niceAxis(2.5, 2.5, 5);
  assert.ok(min < 2.5 && max > 2.5);
});

test("steps are whole, and their axis ends with the run", () => {
  assert.deepEqual(tightAxis(0, 120, 4), { min: 0, max: 120, ticks: [0, 50, 100] });
  assert.deepEqual(tightAxis(0, 3, 8).ticks, [0, 1, 2, 3]);
  assert.equal(tightAxis(0, 0, 4).max, 1);
});

test("labels of an axis have as many decimals as they need", () => {
  assert.deepEqual(tickLabels([1, 1.5, 2]), ["1.0", "1.5", "2.0"]);
  assert.deepEqual(tickLabels([0, 500, 1000]), ["0", "500", "1,000"]);
  assert.deepEqual(tickLabels([0, 10_000, 20_000]), ["0", "10k", "20k"]);
  assert.deepEqual(tickLabels([0, 1e-5, 2e-5]), ["0", "1e-5", "2e-5"]);
  assert.deepEqual([2e-5, 0.00015, 0].map(scientific), ["2e-5", "1.5e-4", "0"]);
});

test("smoothing keeps a constant, and a line in its middle", () => {
  const flat = Array.from({ length: 50 }, (_, x) => ({ x, y: 2 }));
  assert.ok(smoothed(flat, 0.9).every(({ y }) => Math.abs(y - 2) < 1e-9));
  const line = smoothed(
    Array.from({ length: 201 }, (_, x) => ({ x, y: 3 - x / 100 })),
    0.8,
  );
  assert.ok(Math.abs(line[100]!.y - 2) < 1e-6);
  assert.equal(smoothingOf(5), 0);
  assert.ok(smoothingOf(2000) > smoothingOf(100) && smoothingOf(1e6) < 1);
});

test("the nearest point is found, whatever the gaps", () => {
  const points = [1, 2, 10].map((x) => ({ x, y: 0 }));
  assert.deepEqual(
    [-5, 1.4, 1.6, 5, 7, 99].map((x) => nearest(points, x)),
    [0, 0, 1, 1, 2, 2],
  );
  assert.equal(nearest([], 3), -1);
});

test("thinning keeps every spike", () => {
  const points = Array.from({ length: 5000 }, (_, x) => ({ x, y: x === 3217 ? 99 : x === 1234 ? -99 : Math.sin(x) }));
  const kept = thinned(points, 400);
  assert.ok(kept.length <= 402);
  assert.ok(kept.some(({ y }) => y === 99) && kept.some(({ y }) => y === -99));
  assert.ok(kept.every((point, index) => index === 0 || point.x > kept[index - 1]!.x));
});
