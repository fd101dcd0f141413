/** What the server says of jobs: the shapes of its HTTP API (docs/protocol.md). */

export type State = "submitted" | "running" | "finished" | "failed" | "cancelled";

export interface Job {
  id: string;
  kind: string;
  name: string;
  state: State;
  cancelling: boolean;
  created_s: number;
  started_s: number;
  ended_s: number;
  error?: string;
  fraction?: number;
  phase?: Phase | "";
}

/** What the target of a fine-tuning says of it while its job runs. */
export type Phase = "pending" | "starting" | "running" | "recovering" | "finished" | "failed" | "cancelled";

export interface Step {
  label: string;
  records_in: number;
  records_out: number;
  rejected: Record<string, number>;
  cut: Record<string, number>;
  changed: Record<string, number>;
}

export interface Progress {
  fraction: number;
  eta_s: number | null;
  num_units: number;
  num_done: number;
  failed: string[];
  /** How many records were read, rejected and written so far. */
  totals: string;
  steps: Step[];
}

export interface LogLine {
  id: string;
  time_s: number;
  line: string;
}

/** What every job has; `training` for a fine-tuning, the rest for a cleaning. */
export interface JobAnswer {
  job: Job;
  log: LogLine[];
  now_s: number;
  removes_files: boolean;
  training?: Training;
  progress?: Progress;
  spec?: {
    recipe: string | null;
    recipe_name: string | null;
    inputs: string[] | null;
    labels: string[] | null;
    out: string | null;
  };
  files?: Record<string, { name: string; size: number }>;
}

/**
 * Of a training on judged answers: how clearly good ones are preferred to bad ones, and of pairs, in what share of them;
 * how far the model moved towards the good and towards the bad ones; how far it went from its beginning.
 */
export type JudgedValue = "margin" | "accuracy" | "chosen_reward" | "rejected_reward" | "kl";

export interface TrainingPoint extends Partial<Record<JudgedValue, number | null>> {
  step: number;
  loss?: number | null;
  lr?: number | null;
  tokens_per_s?: number | null;
  epoch?: number | null;
}

export interface Plan {
  examples?: number;
  tokens?: number;
  supervised_tokens?: number;
  truncated?: number;
  unsupervised?: number;
  refused?: number;
  refusals?: Record<string, number>;
  /** Rated answers that are trained on. */
  good?: number;
  bad?: number;
  packing?: boolean;
  packing_reason?: string;
  steps?: number;
  sequences_per_step?: number;
  per_device?: number;
  accumulation?: number;
  world_size?: number;
  attention?: string;
  attention_reason?: string;
  dtype?: string;
}

export interface Remote {
  on: "local" | "sky" | null;
  spot: boolean | null;
  infra: string | null;
  num_devices: number | null;
  num_nodes: number | null;
  state?: Phase;
  message?: string;
  remedy?: string;
  recoveries?: number;
  cost_usd?: number | null;
  seconds?: number | null;
}

export interface Serving {
  name: string;
  path: string;
  kind: "model" | "adapter";
  /** The adapter that the same fine-tuning left unmerged, or "". */
  adapter: string;
  lineage: string[];
  wanted: boolean;
  loading: boolean;
  workers: number;
  trouble: string;
}

export interface Training {
  records: number;
  of: number;
  loss: number | null;
  lr: number | null;
  tokens_per_s: number | null;
  eta_s: number | null;
  epoch: number | null;
  plan: Plan;
  evals: ({ step: number; loss: number | null } & Partial<Record<JudgedValue, number>>)[];
  checkpoints: { step: number; time_s?: number; bytes?: number }[];
  resumes: { step: number; time_s?: number }[];
  /** What happens between a cancel and the end; empty otherwise. */
  stopping: string;
  model: string;
  config: {
    name?: string;
    model?: string;
    method?: string;
    objective?: string;
    template?: string;
    epochs?: number;
    max_steps?: number;
    seq_len?: number;
    keep_checkpoints?: number;
    learning_rate?: number;
    schedule?: string;
  };
  data: string[];
  out: string;
  points: TrainingPoint[];
  remote: Remote;
  serving: Serving | null;
}

export interface Preset {
  preset: string;
  name: string;
  model: string;
  method: string;
  epochs: number;
  learning_rate: number;
  seq_len: number;
  max_steps: number;
  eval_fraction: number;
  tokens_per_step: number;
}

/** Of cleaned data, in the tokens of the recipe's model. */
export interface Lengths {
  records: number;
  tokens: number;
  /** Least length of a bucket → conversations; a bucket is a quarter of an octave. */
  tokens_of_record: Record<string, number>;
}

export interface Choices {
  presets: Preset[];
  models: string[];
  data: { id: string; name: string; bytes: number; ended_s: number; lengths: Lengths | null }[];
  places: string[];
  /** How fast the last fine-tunings were. */
  rates: { model: string; method: string; on: string; tokens_per_s: number }[];
}

export interface TrainingOrder {
  key: string;
  preset: string;
  data: string;
  name: string;
  model: string;
  on: string;
  out: string;
  spot: boolean;
  numbers: Record<string, string>;
}

/** What the data of an order would become. `problem`: why the training would end, or why nothing was found. */
export interface Preview {
  id: string;
  state: "waiting" | "running" | "ended";
  lines: string[];
  /** Conversations in stretches: the text, and whether it is learnt. */
  examples: { where: string; stretches: [string, boolean][] }[];
  problem: string;
}

export interface Recipe {
  name: string;
  text: string;
}

export interface UploadState {
  id: string;
  name: string;
  size: number;
  offset: number;
  piece_bytes: number;
}

export interface Order {
  key: string;
  recipe: string;
  recipe_name: string;
  uploads: string[];
  name: string;
}

export function isUnfinished(job: Job): boolean {
  return job.state === "submitted" || job.state === "running";
}
