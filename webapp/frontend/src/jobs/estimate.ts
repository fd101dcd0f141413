/** What a fine-tuning will cost in time and in cut conversations, as far as it can be known before it starts. Pure. */

import { count, duration } from "../shared/amounts";
import type { Choices, Lengths, Preset } from "./protocol";

/** Of the packaged model on two cores, by our benchmarks. */
const ROUGH = { model: "smollm2-135m", tokens_per_s: 50 };
/** Only what takes longer deserves a warning's words. */
const LONG_S = 3_600;

export interface Plan {
  preset: Preset;
  model: string;
  on: string;
  epochs: number;
  seq_len: number;
  max_steps: number;
}

/** How many conversations are longer than `seqLen` tokens, and the tokens that are left of all. */
export function cutAt(seqLen: number, { tokens, tokens_of_record }: Lengths): { cut: number; tokens: number } {
  const floors = Object.keys(tokens_of_record)
    .map(Number)
    .sort((a, b) => a - b);
  let cut = 0;
  let beyond = 0;
  floors.forEach((floor, i) => {
    const end = Math.min(floors[i + 1] ?? Infinity, floor * 2 ** 0.25); // a bucket is a quarter of an octave
    const longer = Math.min(1, Math.max(0, (end - seqLen) / Math.max(1, end - floor)));
    const number = (tokens_of_record[floor] ?? 0) * longer;
    cut += number;
    beyond += number * ((Math.max(floor, seqLen) + end) / 2 - seqLen);
  });
  return { cut: Math.round(cut), tokens: Math.max(0, Math.round(tokens - beyond)) };
}

/** The warning before the start; empty if next to nothing is cut. */
export function describeCut({ seq_len }: Plan, lengths: Lengths | null): string {
  if (!lengths || !(seq_len > 0)) return "";
  const { cut } = cutAt(seq_len, lengths);
  if (cut < 1) return "";
  const longer = `About ${cut.toLocaleString("en")} of ${count(lengths.records, "conversation")} ${cut === 1 ? "is" : "are"} longer than ${seq_len.toLocaleString("en")} tokens`;
  return `${longer}. What is beyond is cut off and not learnt. Choose a longer sequence, or clean with “split_long: {max_tokens: ${seq_len}}”.`;
}

/** How long it will take, and by what that is known. */
export function describeTime(plan: Plan, lengths: Lengths | null, rates: Choices["rates"]): string {
  const tokens = tokensOf(plan, lengths);
  if (tokens === undefined) return "";
  const learnt = `${Math.round(tokens).toLocaleString("en")} tokens to learn from`;
  const measured = rates.find(
    ({ model, method, on }) => model === plan.model && method === plan.preset.method && on === plan.on,
  );
  if (measured)
    return `${about(tokens / measured.tokens_per_s)}: ${learnt}, at the speed of the last fine-tuning of this model there.`;
  if (plan.on === "local" && plan.model === ROUGH.model)
    return `${about(tokens / ROUGH.tokens_per_s)} on two CPU cores: ${learnt}. After the first steps, the job's page knows better.`;
  return `${learnt}. No fine-tuning of this model ran there yet, so nobody knows how long it takes; the job's page tells after the first steps.`;
}

function about(seconds: number): string {
  const rough =
    seconds >= LONG_S ? Math.round(seconds / 1_800) * 1_800 : seconds >= 90 ? Math.round(seconds / 60) * 60 : seconds;
  return `About ${duration(rough)}`;
}

function tokensOf({ preset, epochs, seq_len, max_steps }: Plan, lengths: Lengths | null): number | undefined {
  if (max_steps > 0) return max_steps * preset.tokens_per_step;
  return lengths && epochs > 0 && seq_len > 0 ? epochs * cutAt(seq_len, lengths).tokens : undefined;
}
