/** What the server says of jobs: the shapes of its HTTP API (docs/protocol.md). */

export type State = "submitted" | "running" | "finished" | "failed" | "cancelled";

export interface Job {
  id: string; kind: string; name: string; state: State; cancelling: boolean;
  created_s: number; started_s: number; ended_s: number;
  error?: string;
  fraction?: number;
}

export interface Step {
  label: string; records_in: number; records_out: number;
  rejected: Record<string, number>; cut: Record<string, number>; changed: Record<string, number>;
}

export interface Progress { fraction: number; eta_s: number | null; num_units: number; num_done: number; failed: string[]; steps: Step[] }

export interface LogLine { id: string; time_s: number; line: string }

export interface JobAnswer {
  job: Job; progress: Progress; log: LogLine[]; now_s: number; removes_files: boolean;
  spec: { recipe: string | null; recipe_name: string | null; inputs: string[] | null; labels: string[] | null; out: string | null };
  files: Record<string, { name: string; size: number }>;
}

export interface Recipe { name: string; text: string }

export interface UploadState { id: string; name: string; size: number; offset: number; piece_bytes: number }

export interface Order { key: string; recipe: string; recipe_name: string; uploads: string[]; name: string }

export function isUnfinished(job: Job): boolean {
  return job.state === "submitted" || job.state === "running";
}
