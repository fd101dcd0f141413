/** What the admin page says of numbers. Pure. */

import { bytes, count, duration } from "../shared/amounts";
import type {
  DeadLetter,
  Limits,
  ModelRow,
  RedisRow,
  RequestRow,
  Storage,
  UsageRow,
  WaitingName,
  WorkerRow,
} from "./protocol";

const CLASSES: [WaitingName, string][] = [
  ["retried", "ran before"],
  ["interactive", "interactive"],
  ["batch", "batch"],
];
const STATUSES: Record<string, string> = {
  new: "Waiting",
  running: "Running",
  cancelled: "Cancelled",
  finished: "Ending",
  failed: "Ending",
  gone: "Gone",
};
const SILENT_S = 3; // a worker announces itself every second or two
const ENTRIES: Record<string, string> = {
  files: "Files of the API",
  uploads: "Uploads",
  jobs: "Jobs: results and logs",
  trained: "Trained models and checkpoints",
  redis: "Redis: queues and answers",
};

/** `2 interactive (oldest 4 s) · 1 batch (oldest 2 min)`; empty while nothing waits. */
export function waitingText(classes: ModelRow["classes"]): string {
  return CLASSES.filter(([name]) => classes[name].number)
    .map(([name, word]) => `${classes[name].number} ${word} (oldest ${duration(classes[name].oldest_s)})`)
    .join(" · ");
}

export function lastSeen({ age_s }: WorkerRow): string {
  return age_s < SILENT_S ? "now" : `${duration(age_s)} ago`;
}

export function memoryText(mib: number): string {
  return mib ? bytes(mib * 1_048_576) : "";
}

export function statusWord({ status }: RequestRow): string {
  return STATUSES[status] ?? status;
}

export function redisText({ server, version, used_memory_mib, memory_percent, primaries }: RedisRow): string {
  const memory = memory_percent ? `${memoryText(used_memory_mib)}, ${memory_percent} %` : memoryText(used_memory_mib);
  return `${server} ${version}${primaries > 1 ? `, ${count(primaries, "primary", "primaries")}` : ""} · ${memory}`;
}

/** An entry of the state folder in words. */
export function entryName(name: string): string {
  return ENTRIES[name] ?? name;
}

export function diskFraction({ free_bytes, total_bytes }: Storage): number {
  return total_bytes ? 1 - free_bytes / total_bytes : 0;
}

/** What a dead letter died of, in words where there are some. */
export function reasonText({ reason }: DeadLetter): string {
  const words: Record<string, string> = {
    poison: "Workers died on it (poison)",
    expired: "It waited too long (expired)",
    protocol: "No worker could read it (protocol)",
  };
  return words[reason] ?? reason;
}

export function limitText(limit: number | null): string {
  return limit ? limit.toLocaleString("en") : "no limit";
}

/** `1,200 + 300`: used, and reserved by requests in flight; empty where nothing is counted. */
export function tokensText({ counted, tokens_used, tokens_reserved }: UsageRow): string {
  if (!counted) return "";
  const used = tokens_used.toLocaleString("en");
  return tokens_reserved ? `${used} + ${tokens_reserved.toLocaleString("en")}` : used;
}

export function limitsText({ tokens_per_day, in_flight, weight }: Limits): string {
  const tokens = tokens_per_day ? `${tokens_per_day.toLocaleString("en")} tokens a day` : "tokens without a limit";
  const requests = in_flight ? `${count(in_flight, "request")} at once` : "requests without a limit";
  return `${tokens}, ${requests}, weight ${weight.toLocaleString("en")}`;
}
