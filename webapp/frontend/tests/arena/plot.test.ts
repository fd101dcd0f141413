/** The scale of the leaderboard's picture. */

import assert from "node:assert/strict";
import test from "node:test";
import { scaleOf } from "../../src/arena/plot";

function standing(score: number, low: number | null, high: number | null) {
  return { score, low, high };
}

test("the scale holds every score and interval, in round steps", () => {
  const scale = scaleOf([standing(1074, 960, 1150), standing(926, 830, 1040)]);
  assert.deepEqual(scale, { from: 800, to: 1200, ticks: [800, 900, 1000, 1100, 1200] });
});

test("open ends and a single score have a scale too", () => {
  for (const one of [standing(1000, null, null), standing(1000, 1000, 1000)]) {
    const { from, to, ticks } = scaleOf([one]);
    assert.ok(from < 1000 && to > 1000 && ticks.length >= 2, JSON.stringify({ from, to, ticks }));
  }
});
