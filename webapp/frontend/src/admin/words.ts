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

/** The entries of the state folder in words; those of no name here are one, the last. */
export function namedEntries(entries: Storage["entries"]): Storage["entries"] {
  const known = entries.flatMap(({ name, bytes }) => (ENTRIES[name] ? [{ name: ENTRIES[name], bytes }] : []));
  const rest = entries.reduce((sum, { name, bytes }) => (ENTRIES[name] ? sum : sum + bytes), 0);
  return rest ? [...known, { name: "Other files", bytes: rest }] : known;
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

/** Empty where nothing is counted. */
export function tokensText({ counted, tokens_used }: UsageRow): string {
  return counted ? tokens_used.toLocaleString("en") : "";
}

/** What requests in flight may still use. */
export function reservedText({ tokens_reserved }: UsageRow): string {
  return tokens_reserved ? `+ ${tokens_reserved.toLocaleString("en")} reserved` : "";
}

export function limitsText({ tokens_per_day, in_flight, weight }: Limits): string {
  const tokens = tokens_per_day ? `${tokens_per_day.toLocaleString("en")} tokens a day` : "tokens without a limit";
  const requests = in_flight ? `${count(in_flight, "request")} at once` : "requests without a limit";
  return `${tokens}, ${requests}, weight ${weight.toLocaleString("en")}`;
}
