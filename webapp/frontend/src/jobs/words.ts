/** What the job pages say: states, facts, progress. Pure. */

import { age, count, duration } from "../shared/amounts";
import type { Job, Phase, Progress, Step } from "./protocol";

const STATES: Record<Job["state"], string> = {
  submitted: "Waiting",
  running: "Cleaning",
  finished: "Finished",
  failed: "Failed",
  cancelled: "Cancelled",
};
const RUNNING: Record<string, string> = { train: "is being trained", batch: "is being answered" };
const PHASES: Partial<Record<Phase, string>> = {
  pending: "Waiting for a machine",
  starting: "Starting",
  recovering: "Recovering",
};

/** `phase`: what the target of a fine-tuning says of it. */
export function stateWord(job: Pick<Job, "kind" | "state" | "cancelling">, phase?: Phase | ""): string {
  if (job.cancelling && (job.state === "running" || job.state === "submitted")) return "Cancelling…";
  if (job.kind === "train" && job.state === "running") return (phase && PHASES[phase]) || "Training";
  if (job.kind === "batch" && job.state === "running") return "Answering";
  return STATES[job.state];
}

export function kindWord(kind: string): string {
  if (kind === "batch") return "Batch";
  return kind === "train" ? "Fine-tuning" : "Cleaning";
}

/** Only as exact as an estimate is. */
export function remaining(eta_s: number | null): string {
  if (eta_s === null) return "";
  if (eta_s < 3) return "nearly done";
  if (eta_s < 60) return `about ${eta_s < 10 ? Math.round(eta_s) : Math.round(eta_s / 5) * 5} s left`;
  if (eta_s < 5_400) return `about ${Math.round(eta_s / 60)} min left`;
  return `about ${Math.round(eta_s / 3_600)} h left`;
}

/** Never 100 % before the end. */
export function percent(fraction: number, ended = false): string {
  return `${ended ? 100 : Math.min(99, Math.floor(fraction * 100))} %`;
}

/** The line under the name of a job. */
export function facts(job: Job, now_s: number, recipe: string, num_files: number): string {
  const parts = [recipe, count(num_files, "file"), `submitted ${age(now_s - job.created_s)}`];
  if (job.ended_s && job.started_s) parts.push(`took ${duration(job.ended_s - job.started_s)}`);
  else if (job.started_s) parts.push(`running for ${duration(now_s - job.started_s)}`);
  return parts.filter(Boolean).join(" · ");
}

/** The line under the bar of a job. */
export function overall(job: Job, progress: Progress): string {
  if (job.kind === "batch") return progress.totals || "Waiting for the pipelines to take the batch";
  if (job.state === "submitted") return "Waiting for a cleaner to take the job";
  if (job.state === "finished") return progress.totals || "Finished";
  if (job.state === "cancelled") return "Cancelled; the finished parts are kept until the job is removed";
  if (job.state === "failed") return "Failed; the finished parts are kept until the job is removed";
  const read = progress.steps[0]?.records_in ?? 0;
  if (!progress.num_units) return read ? `Reading: ${count(read, "record")}` : "Reading";
  return `${percent(progress.fraction)} · ${progress.num_done.toLocaleString("en")} of ${count(progress.num_units, "part")}`;
}

export interface Shares {
  kept: number;
  dropped: number;
}

/** How wide the bar of a step is drawn: parts of `most`, the largest number of records that entered a step. */
export function shares(step: Step, most: number): Shares {
  if (most <= 0) return { kept: 0, dropped: 0 };
  const dropped = total(step.rejected) / most;
  return { kept: Math.max(0, Math.min(step.records_in / most - dropped, 1)), dropped: Math.min(dropped, 1) };
}

export function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, number) => sum + number, 0);
}

/** `[["too short", 12], …]`, most frequent first. */
export function ranked(counts: Record<string, number>): [string, number][] {
  return Object.entries(counts)
    .sort(([a, x], [b, y]) => y - x || a.localeCompare(b))
    .map(([name, n]) => [plain(name), n]);
}

/** `html_to_markdown` → `html to markdown`; the second use of a step, `roles-2` → `roles (2)`. */
export function plain(name: string): string {
  return name.replaceAll("_", " ").replace(/-(\d+)$/, " ($1)");
}

/** What a screen reader hears when the state changes. */
export function announcement(job: Job): string {
  const what = {
    submitted: "waits",
    running: RUNNING[job.kind] ?? "is being cleaned",
    finished: "is finished",
    failed: "failed",
    cancelled: "was cancelled",
  };
  return `${job.name} ${what[job.state]}`;
}
