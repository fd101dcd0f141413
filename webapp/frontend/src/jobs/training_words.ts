/** What the page says of a fine-tuning. Pure. */

import { bytes, count, duration } from "../shared/amounts";
import type { Job, Phase, Training } from "./protocol";
import { percent } from "./words";

export function lossText(loss: number): string {
  return Math.abs(loss) >= 1000 ? scientific(loss) : loss.toFixed(loss < 0.1 ? 4 : 3);
}

/** `12,300` or, of small models on small machines, `85.2`. */
export function rateText(tokens_per_s: number): string {
  return tokens_per_s >= 100 ? Math.round(tokens_per_s).toLocaleString("en") : tokens_per_s.toFixed(1);
}

/** `97 %` of the pairs. */
export function shareText(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** `2e-5`, as people write learning rates. */
export function scientific(value: number): string {
  if (value === 0) return "0";
  const [mantissa, power] = value.toExponential(2).split("e");
  return `${Number(mantissa)}e${Number(power)}`;
}

export function priceText(usd: number): string {
  return `$${usd.toFixed(usd > 0 && usd < 0.1 ? 3 : 2)}`;
}

/** `[what, number, unit]` of each tile that is known. */
export function figures(job: Job, training: Training, now_s: number): [what: string, value: string, of: string][] {
  const { records, of, loss, epoch, tokens_per_s, config, remote } = training;
  const seconds = remote.seconds || (job.started_s ? (job.ended_s || now_s) - job.started_s : 0);
  const rows: [string, string, string][] = [];
  if (of) rows.push(["Step", records.toLocaleString("en"), `of ${of.toLocaleString("en")}`]);
  if (loss !== null) rows.push(["Training loss", lossText(loss), ""]);
  const evaluated = training.evals.at(-1);
  if (evaluated && evaluated.loss !== null)
    rows.push(["Evaluation loss", lossText(evaluated.loss), `at ${evaluated.step.toLocaleString("en")}`]);
  if (evaluated?.accuracy !== undefined)
    rows.push(["Preferred rightly", shareText(evaluated.accuracy), `at ${evaluated.step.toLocaleString("en")}`]);
  if (epoch !== null) rows.push(["Epoch", epoch.toFixed(2), config.max_steps ? "" : `of ${config.epochs}`]);
  if (tokens_per_s !== null) rows.push(["Tokens/s", rateText(tokens_per_s), ""]);
  if (seconds > 0) rows.push(["Time so far", duration(seconds), ""]);
  if (remote.cost_usd !== null && remote.cost_usd !== undefined)
    rows.push(["Cost so far", priceText(remote.cost_usd), ""]);
  return rows;
}

const BEFORE_STEPS: Partial<Record<Phase, string>> = {
  pending: "Waiting for a machine",
  starting: "Starting the machine",
  recovering: "Getting a new machine",
};

/** The line under the bar. */
export function trainingOverall(job: Job, training: Training): string {
  const step = training.of
    ? `step ${training.records.toLocaleString("en")} of ${training.of.toLocaleString("en")}`
    : "";
  if (job.state === "submitted") return "Waiting for the pipelines to take the job";
  if (job.state === "finished") return `Finished${step ? ` at ${step}` : ""}`;
  if (job.state === "failed" || job.state === "cancelled") {
    const kept = training.checkpoints.length ? "; the checkpoints are kept, and the job can continue from them" : "";
    return `${job.state === "failed" ? "Failed" : "Cancelled"}${step ? ` at ${step}` : ""}${kept}`;
  }
  if (training.stopping) return sentence(training.stopping);
  if (training.of) return `${percent(training.records / training.of)} · ${step}`;
  return (training.remote.state && BEFORE_STEPS[training.remote.state]) ?? "Loading model and data";
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Where it runs: `this machine`, `SkyPilot, spot, 2 × 8 GPUs`. */
export function placeText({ on, spot, infra, num_devices, num_nodes }: Training["remote"]): string {
  if (on !== "sky") return "this machine";
  const machines =
    num_nodes && num_nodes > 1 ? `${num_nodes} × ${count(num_devices ?? 1, "GPU")}` : count(num_devices ?? 1, "GPU");
  return ["SkyPilot", infra, spot && "spot", machines].filter(Boolean).join(", ");
}

/** What a training of an objective learns from, and how the plan calls it. */
const OBJECTIVES: Record<string, { from: string; records: string }> = {
  dpo: { from: "on preferences", records: "Pairs of answers" },
  kto: { from: "on rated answers", records: "Rated answers" },
};

/** The line under the name. */
export function trainingFacts(training: Training, ago: string): string {
  const { config, remote } = training;
  const parts = [
    `fine-tuning of ${config.model ?? "a model"}`,
    config.method === "full" ? "" : config.method,
    OBJECTIVES[config.objective ?? ""]?.from ?? "",
    `on ${placeText(remote)}`,
    `submitted ${ago}`,
  ];
  if (remote.recoveries) parts.push(`recovered ${count(remote.recoveries, "time")}`);
  return parts.filter(Boolean).join(" · ");
}

/** What was planned, as `[what, value]`. */
export function planRows({ plan, config, data, out, model }: Training): [string, string][] {
  const number = (value: number) => value.toLocaleString("en");
  const rows: [string, string][] = [];
  if (plan.examples !== undefined) {
    const kinds =
      plan.good !== undefined ? `, to train on ${number(plan.good)} good and ${number(plan.bad ?? 0)} bad` : "";
    const records = OBJECTIVES[config.objective ?? ""]?.records ?? "Conversations";
    rows.push([records, `${number(plan.examples)}${kinds}`]);
  }
  if (plan.supervised_tokens !== undefined) {
    const share = plan.tokens
      ? `, ${Math.round((100 * plan.supervised_tokens) / plan.tokens)} % of ${number(plan.tokens)}`
      : "";
    rows.push(["Supervised tokens", `${number(plan.supervised_tokens)}${share}`]);
  }
  if (plan.truncated !== undefined)
    rows.push(["Truncated", `${number(plan.truncated)} at ${number(config.seq_len ?? 0)} tokens`]);
  if (plan.unsupervised) rows.push(["Without supervised tokens", number(plan.unsupervised)]);
  if (plan.refused) {
    const reasons = Object.entries(plan.refusals ?? {}).map(([reason, times]) => `${reason} ${number(times)}`);
    rows.push(["Refused records", `${number(plan.refused)} (${reasons.join(", ")})`]);
  }
  if (plan.packing === false) rows.push(["Packing", `off: ${plan.packing_reason ?? ""}`]);
  if (plan.sequences_per_step !== undefined) {
    const parts = [
      `${plan.world_size ?? 1} × ${plan.per_device ?? 1}`,
      (plan.accumulation ?? 1) > 1 ? ` × ${plan.accumulation} accumulated` : "",
    ];
    rows.push(["Sequences per step", `${number(plan.sequences_per_step)} (${parts.join("")})`]);
  }
  if (plan.attention)
    rows.push(["Attention", plan.attention_reason ? `${plan.attention}: ${plan.attention_reason}` : plan.attention]);
  if (plan.dtype) rows.push(["Number format", plan.dtype]);
  if (config.template) rows.push(["Chat template", config.template]);
  if (config.learning_rate)
    rows.push(["Learning rate", `${scientific(config.learning_rate)}, ${config.schedule ?? ""}`.replace(/, $/, "")]);
  rows.push(...data.map((name): [string, string] => ["Data", name]), ["Written to", out]);
  if (model) rows.push(["Model", model]);
  return rows;
}

export function checkpointText({ step, bytes: size }: { step: number; bytes?: number }): string {
  return [`step ${step.toLocaleString("en")}`, size ? bytes(size) : ""].filter(Boolean).join(" · ");
}
