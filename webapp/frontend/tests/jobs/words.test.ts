/** What the job pages say of times, steps and states. */

import assert from "node:assert/strict";
import test from "node:test";
import type { Job, Step } from "../../src/jobs/protocol";
import { facts, overall, percent, plain, ranked, remaining, shares, stateWord } from "../../src/jobs/words";

const job = (more: Partial<Job> = {}): Job => ({
  id: "j",
  kind: "clean",
  name: "July",
  state: "running",
  cancelling: false,
  created_s: 1000,
  started_s: 1010,
  ended_s: 0,
  ...more,
});
const step = (more: Partial<Step> = {}): Step => ({
  label: "roles",
  records_in: 100,
  records_out: 90,
  rejected: { too_short: 10 },
  cut: {},
  changed: {},
  ...more,
});
const progress = (more: object = {}) => ({
  fraction: 0,
  eta_s: null,
  num_units: 0,
  num_done: 0,
  failed: [],
  totals: "",
  steps: [],
  ...more,
});

test("what is left is told only as exactly as it is known", () => {
  assert.deepEqual([null, 1, 7, 23, 130, 7_300].map(remaining), [
    "",
    "nearly done",
    "about 7 s left",
    "about 25 s left",
    "about 2 min left",
    "about 2 h left",
  ]);
});

test("nothing is done before it is done", () => {
  assert.equal(percent(0.9999), "99 %");
  assert.equal(percent(1), "99 %");
  assert.equal(percent(1, true), "100 %");
});

test("a job that is being cancelled says so until it has ended", () => {
  assert.equal(stateWord(job({ cancelling: true })), "Cancelling…");
  assert.equal(stateWord(job({ cancelling: true, state: "cancelled" })), "Cancelled");
});

test("a fine-tuning trains, and says when its machine is being replaced", () => {
  assert.equal(stateWord(job({ kind: "train" })), "Training");
  assert.equal(stateWord(job({ kind: "train" }), "recovering"), "Recovering");
  assert.equal(stateWord(job({ kind: "train", state: "failed" }), "recovering"), "Failed");
  assert.equal(stateWord(job({ kind: "clean" })), "Cleaning");
});

test("a batch is answered, and its line counts lines", () => {
  assert.equal(stateWord(job({ kind: "batch" })), "Answering");
  assert.equal(stateWord(job({ kind: "batch", state: "failed" })), "Failed");
  const totals = "3 of 9 lines answered, 1 failed";
  assert.equal(overall(job({ kind: "batch" }), progress({ totals })), totals);
  assert.equal(overall(job({ kind: "batch", state: "cancelled" }), progress({ totals })), totals);
});

test("the facts of a job are its recipe, files and times", () => {
  assert.equal(facts(job(), 1070, "vicuna.yaml", 2), "vicuna.yaml · 2 files · submitted 1 min ago · running for 1 min");
  assert.equal(
    facts(job({ state: "finished", ended_s: 1085 }), 9000, "", 1),
    "1 file · submitted 2 h ago · took 1 min 15 s",
  );
});

test("the line under the bar follows the job", () => {
  assert.equal(overall(job(), progress()), "Reading");
  assert.equal(overall(job(), progress({ steps: [step({ records_in: 1200 })] })), "Reading: 1,200 records");
  assert.equal(overall(job(), progress({ fraction: 0.5, num_units: 4, num_done: 2 })), "50 % · 2 of 4 parts");
  assert.equal(
    overall(job({ state: "finished" }), progress({ totals: "100 records read, 20 rejected, 80 written" })),
    "100 records read, 20 rejected, 80 written",
  );
});

test("the bars of the steps are drawn to one scale", () => {
  assert.deepEqual(shares(step(), 200), { kept: 0.45, dropped: 0.05 });
  assert.deepEqual(shares(step({ records_in: 0, rejected: {} }), 0), { kept: 0, dropped: 0 });
});

test("reasons come most frequent first, in words", () => {
  assert.deepEqual(ranked({ too_short: 3, empty: 10, a_b: 3 }), [
    ["empty", 10],
    ["a b", 3],
    ["too short", 3],
  ]);
  assert.equal(plain("roles-2"), "roles (2)");
});
