/** What the page keeps and says of a fine-tuning. */

import assert from "node:assert/strict";
import test from "node:test";
import type { Job, Serving, Training } from "../../src/jobs/protocol";
import { servingText } from "../../src/jobs/serving_card";
import { placeOf } from "../../src/jobs/tabs";
import { numberText } from "../../src/jobs/train_form";
import { Points } from "../../src/jobs/training_view";
import {
  figures,
  lossText,
  placeText,
  planRows,
  priceText,
  rateText,
  trainingFacts,
  trainingOverall,
} from "../../src/jobs/training_words";

const job = (more: Partial<Job> = {}): Job => ({
  id: "j",
  kind: "train",
  name: "mine",
  state: "running",
  cancelling: false,
  created_s: 1000,
  started_s: 1010,
  ended_s: 0,
  ...more,
});
const remote = { on: "local" as const, spot: false, infra: "", num_devices: 1, num_nodes: 1 };
const training = (more: Partial<Training> = {}): Training => ({
  records: 0,
  of: 0,
  loss: null,
  lr: null,
  tokens_per_s: null,
  eta_s: null,
  epoch: null,
  plan: {},
  evals: [],
  checkpoints: [],
  resumes: [],
  stopping: "",
  model: "",
  config: { name: "mine", model: "smollm2-135m", method: "full", epochs: 3, seq_len: 512 },
  data: ["/d/data.jsonl"],
  out: "/t/mine",
  points: [],
  remote,
  serving: null,
  ...more,
});
const serving = (more: Partial<Serving> = {}): Serving => ({
  name: "mine",
  path: "/t",
  kind: "model",
  adapter: "",
  lineage: [],
  wanted: false,
  loading: false,
  workers: 0,
  trouble: "",
  ...more,
});

test("points come once, and again from where a run went on", () => {
  const points = new Points();
  assert.equal(points.cursor, -1);
  points.add(
    [
      { step: 1, loss: 3 },
      { step: 3, loss: 2 },
      { step: 2, loss: 2.5 },
    ],
    3,
  );
  assert.equal(points.cursor, 3);
  points.add([], 1); // it went on from step 1
  assert.equal(points.cursor, 1);
  points.add(
    [
      { step: 2, loss: 2.6 },
      { step: 3, loss: 2 },
    ],
    2,
  );
  assert.deepEqual(points.curve("loss"), [
    { x: 1, y: 3 },
    { x: 2, y: 2.6 },
    { x: 3, y: 2 },
  ]);
});

test("what is no number is not drawn", () => {
  const points = new Points();
  points.add([{ step: 1, loss: null }, { step: 2, loss: 2 }, { step: 3 }], 3);
  assert.deepEqual(points.curve("loss"), [{ x: 2, y: 2 }]);
  assert.equal(points.cursor, 3);
});

test("the figures are those that are known", () => {
  assert.deepEqual(figures(job({ state: "submitted", started_s: 0 }), training(), 1000), []);
  const known = training({
    records: 30,
    of: 1200,
    loss: 1.23456,
    epoch: 0.5,
    tokens_per_s: 12_345.6,
    evals: [{ step: 20, loss: 1.5 }],
    remote: { ...remote, seconds: 3_700, cost_usd: 12.345 },
  });
  assert.deepEqual(
    figures(job(), known, 2000).map((row) => row.join(" ").trim()),
    [
      "Step 30 of 1,200",
      "Training loss 1.235",
      "Evaluation loss 1.500 at 20",
      "Epoch 0.50 of 3",
      "Tokens/s 12,346",
      "Time so far 1 h 2 min",
      "Cost so far $12.35",
    ],
  );
});

test("a training on preferences says in what share of the pairs the chosen answer is preferred", () => {
  const preferring = training({
    evals: [{ step: 20, loss: 0.5, margin: 0.4, accuracy: 0.974 }],
    config: { ...training().config, objective: "dpo" },
    plan: { examples: 40 },
  });
  const rows = figures(job({ started_s: 0 }), preferring, 1000).map((row) => row.join(" "));
  assert.deepEqual(rows, ["Evaluation loss 0.500 at 20", "Preferred rightly 97 % at 20"]);
  assert.match(trainingFacts(preferring, "now"), /on preferences/);
  assert.deepEqual(planRows(preferring)[0], ["Pairs of answers", "40"]);
});

test("a training on rated answers says how many of them are good and bad", () => {
  const rating = training({
    config: { ...training().config, objective: "kto" },
    plan: { examples: 1_500, good: 1_000, bad: 400 },
  });
  assert.match(trainingFacts(rating, "now"), /on rated answers/);
  assert.deepEqual(planRows(rating)[0], ["Rated answers", "1,500, to train on 1,000 good and 400 bad"]);
});

test("a loss that is no number is not a figure", () => {
  assert.deepEqual(figures(job({ started_s: 0 }), training({ evals: [{ step: 5, loss: null }] }), 1000), []);
});

test("the line under the bar follows the run", () => {
  assert.equal(trainingOverall(job(), training()), "Loading model and data");
  assert.equal(trainingOverall(job(), training({ remote: { ...remote, state: "starting" } })), "Starting the machine");
  assert.equal(trainingOverall(job(), training({ records: 60, of: 120 })), "50 % · step 60 of 120");
  const stopping = "stopping: the trainer saves its checkpoint (about 52 s)";
  assert.equal(
    trainingOverall(job({ cancelling: true }), training({ records: 60, of: 120, stopping })),
    "Stopping: the trainer saves its checkpoint (about 52 s)",
  );
  assert.equal(
    trainingOverall(job({ state: "failed" }), training({ records: 60, of: 120, checkpoints: [{ step: 40 }] })),
    "Failed at step 60 of 120; the checkpoints are kept, and the job can continue from them",
  );
});

test("where it runs is said in the words of people", () => {
  assert.equal(placeText(remote), "this machine");
  assert.equal(
    placeText({ on: "sky", spot: true, infra: "aws", num_devices: 8, num_nodes: 2 }),
    "SkyPilot, aws, spot, 2 × 8 GPUs",
  );
  assert.equal(
    trainingFacts(training({ remote: { ...remote, recoveries: 2 } }), "just now"),
    "fine-tuning of smollm2-135m · on this machine · submitted just now · recovered 2 times",
  );
});

test("the plan tells what is learned and what is lost", () => {
  const plan = {
    examples: 1000,
    tokens: 20_000,
    supervised_tokens: 5_000,
    truncated: 3,
    unsupervised: 1,
    sequences_per_step: 32,
    per_device: 2,
    accumulation: 2,
    world_size: 8,
    attention: "sdpa",
    attention_reason: "no GPU",
    dtype: "bf16",
  };
  const rows = new Map(planRows(training({ plan })));
  assert.equal(rows.get("Supervised tokens"), "5,000, 25 % of 20,000");
  assert.equal(rows.get("Sequences per step"), "32 (8 × 2 × 2 accumulated)");
  assert.equal(rows.get("Attention"), "sdpa: no GPU");
  assert.equal(rows.get("Truncated"), "3 at 512 tokens");
});

test("numbers are as exact as one needs", () => {
  assert.deepEqual([2.5, 0.01234, 12_345].map(lossText), ["2.500", "0.0123", "1.23e4"]);
  assert.deepEqual([85.25, 12_345].map(rateText), ["85.3", "12,345"]);
  assert.deepEqual([0, 0.012, 3].map(priceText), ["$0.00", "$0.012", "$3.00"]);
  assert.deepEqual([2e-5, 3, 0, 0.05].map(numberText), ["2e-5", "3", "0", "0.05"]);
});

test("a model is ready, wanted, loaded or served", () => {
  assert.match(servingText(serving()), /is ready/);
  assert.match(servingText(serving({ wanted: true })), /waits for a standby worker/);
  assert.match(servingText(serving({ wanted: true, loading: true })), /is loading/);
  assert.equal(servingText(serving({ wanted: true, workers: 2 })), "mine is served by 2 workers.");
  const both = serving({ wanted: true, workers: 1, adapter: "mine-adapter" });
  assert.equal(servingText(both), "mine is served by 1 worker. Its adapter alone is mine-adapter.");
  const alone = serving({ wanted: true, workers: 1, kind: "adapter", lineage: ["opt", "july"] });
  assert.equal(servingText(alone), "mine is served by 1 worker. It is an adapter, served on july.");
});

test("the form of the address is shown", () => {
  assert.deepEqual(placeOf(""), { form: "clean", data: "" });
  assert.deepEqual(placeOf("#fine-tune"), { form: "train", data: "" });
  assert.deepEqual(placeOf("#fine-tune=a%2Fb"), { form: "train", data: "a/b" });
});
