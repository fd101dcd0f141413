/** What a fine-tuning says before it starts. */

import assert from "node:assert/strict";
import test from "node:test";
import { cutAt, describeCut, describeTime, type Plan } from "../../src/jobs/estimate";
import type { Preset } from "../../src/jobs/protocol";

const PRESET = { preset: "p", method: "full", tokens_per_step: 1_024 } as Preset;
const plan = (more: Partial<Plan> = {}): Plan => ({
  preset: PRESET,
  model: "smollm2-135m",
  on: "local",
  epochs: 3,
  seq_len: 512,
  max_steps: 0,
  ...more,
});
/** 38 conversations of about 280 tokens, 99 of about 1,121. */
const LENGTHS = { records: 137, tokens: 38 * 280 + 99 * 1_121, tokens_of_record: { "256": 38, "1024": 99 } };

test("conversations beyond the sequence length are counted, and so are the tokens that are left", () => {
  const { cut, tokens } = cutAt(512, LENGTHS);
  assert.equal(cut, 99);
  assert.ok(Math.abs(tokens - (38 * 280 + 99 * 512)) < 200, String(tokens));
  assert.deepEqual(cutAt(4_096, LENGTHS), { cut: 0, tokens: LENGTHS.tokens });
  assert.equal(cutAt(1_100, LENGTHS).cut > 0 && cutAt(1_100, LENGTHS).cut < 99, true, "a part of a bucket");
});

test("what will be cut is told before the start, with the remedy", () => {
  assert.match(
    describeCut(plan(), LENGTHS),
    /^About 99 of 137 conversations are longer than 512 tokens.*max_tokens: 512/,
  );
  assert.equal(describeCut(plan({ seq_len: 2_048 }), LENGTHS), "");
  assert.equal(describeCut(plan(), null), "");
  assert.equal(describeCut(plan({ seq_len: Number.NaN }), LENGTHS), "");
});

test("the time is that of the last fine-tuning of this model there, or says what it rests on", () => {
  const rates = [{ model: "m", method: "full", on: "local", tokens_per_s: 10 }];
  const measured = describeTime(plan({ model: "m" }), LENGTHS, rates);
  assert.match(
    measured,
    /^About 5 h( 30 min)?: 1\d\d,\d{3} tokens to learn from, at the speed of the last fine-tuning/,
  );
  assert.match(describeTime(plan(), LENGTHS, rates), /^About 1 h( 30 min)? on two CPU cores/);
  assert.match(describeTime(plan({ model: "other" }), LENGTHS, rates), /nobody knows/);
  assert.match(describeTime(plan({ model: "m", on: "sky" }), LENGTHS, rates), /nobody knows/);
  assert.match(describeTime(plan({ max_steps: 10 }), null, rates), /^About 3 min on two CPU cores: 10,240 tokens/);
  assert.equal(describeTime(plan(), null, rates), "");
});
