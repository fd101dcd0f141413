/** What the routes under `/api/admin` answer. Times of rows are ages in seconds, by the clock of Redis. */

export type WaitingName = "retried" | "interactive" | "batch";

export interface WaitingClass {
  number: number;
  oldest_s: number;
}

export interface ModelRow {
  name: string;
  workers: number;
  slots: number;
  running: number;
  queued: number;
  in_flight: number;
  dead: number;
  tokens_per_s: number;
  oldest_s: number;
  classes: Record<WaitingName, WaitingClass>;
}

export interface WorkerRow {
  wid: string;
  model: string;
  engine: string;
  slots: number;
  running: number;
  tokens_per_s: number;
  host: string;
  pid: number;
  /** Empty and 0 from builds that do not tell them. */
  version: string;
  memory_mib: number;
  protocol: number;
  age_s: number;
}

export interface RequestRow {
  rid: string;
  model: string;
  user: string;
  status: string;
  tokens: number;
  tries: number;
  age_s: number;
  wid: string;
}

export interface DeadLetter {
  rid: string;
  model: string;
  user: string;
  reason: string;
  age_s: number;
}

export interface RedisRow {
  server: string;
  version: string;
  primaries: number;
  clients: number;
  used_memory_mib: number;
  /** 0 where Redis has no limit. */
  memory_percent: number;
}

export interface Overview {
  redis: RedisRow;
  models: ModelRow[];
  workers: WorkerRow[];
  requests: RequestRow[];
  requests_in_flight: number;
  dead: DeadLetter[];
}

export interface ApiKey {
  name: string;
  user: string;
  created: number;
  ending: string;
  used: number | null;
}

export interface User {
  /** As the queue knows them. */
  id: string;
  name: string;
  display_name: string;
  role: string;
  group: string;
  disabled: boolean;
  created_ms: number;
  seen_ms: number | null;
}

export interface Invitation {
  handle: string;
  role: string;
  group: string;
  made_by: string;
  created_ms: number;
  expires_ms: number;
}

/** `accounts`: whether people sign in here. */
export interface People {
  accounts: boolean;
  users: User[];
  invitations: Invitation[];
}

/** 0 is no limit. */
export interface Limits {
  tokens_per_day: number;
  in_flight: number;
  weight: number;
}

/** `limits`: those that the group sets for each of its members. */
export interface Group {
  name: string;
  limits: Partial<Limits>;
  num_members: number;
}

/** A limit that there is not is null; nothing is counted of a user who has none. */
export interface UsageRow {
  user: string;
  /** Whether these are limits of this user alone. */
  own: boolean;
  /** The user's group; empty for none. */
  group: string;
  tokens_used: number;
  tokens_reserved: number;
  tokens_per_day: number | null;
  requests_in_flight: number;
  most_in_flight: number | null;
  weight: number;
  counted: boolean;
  resets_at: string;
  conversation_bytes: number;
  most_conversation_bytes: number;
  file_bytes: number;
  most_file_bytes: number | null;
}

export interface Storage {
  folder: string;
  free_bytes: number;
  total_bytes: number;
  few_bytes: number;
  entries: { name: string; bytes: number }[];
  database: { kind: string; bytes: number; trouble: string };
}
