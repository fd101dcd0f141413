/** What the arena says of a battle and of a leaderboard. */

import assert from "node:assert/strict";
import test from "node:test";
import type { Battle, Standing } from "../../src/arena/protocol";
import { describeBattle, describeBoard, describeInterval } from "../../src/arena/words";

const BLIND: Battle = { id: "b", vote: null, rounds: [] };
const STANDING: Standing = {
  name: "one",
  rank: 1,
  score: 1000,
  low: 900,
  high: 1100,
  votes: 12,
  wins: 6,
  losses: 6,
  ties: 0,
  both_bad: 0,
  group: 1,
  few_votes: false,
};

test("models are named after the vote alone", () => {
  assert.match(describeBattle(BLIND, true), /after your vote/);
  assert.equal(describeBattle(BLIND, false), "");
  const voted = { ...BLIND, vote: "left" as const, left: { name: "x", model: "x" }, right: { name: "y", model: "y" } };
  assert.equal(describeBattle(voted, true), "You voted: A is better. A was x, B was y.");
});

test("a leaderboard says what its votes cannot tell", () => {
  const said = (change: Partial<Standing>, groups = 1, unranked = 0) =>
    describeBoard({ standings: [{ ...STANDING, ...change }], votes: 12, groups, unranked }).join(" ");
  assert.match(said({ high: null }), /every time/);
  assert.match(said({ few_votes: true }), /few votes/);
  assert.match(said({}, 2), /never met/);
  assert.match(said({}, 1, 7), /7 more have none/);
  assert.doesNotMatch(said({}), /every time|few votes|never met|have none/);
  assert.match(describeBoard({ standings: [], votes: 0, groups: 0, unranked: 0 }).join(" "), /Nobody has voted/);
  assert.equal(describeInterval({ low: null, high: 1012.4 }), "open to 1012");
});
