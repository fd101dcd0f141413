/** What the admin page says of numbers. Pure. */

import { bytes, count, duration } from "../shared/amounts";
import type {
  DeadLetter,
  Group,
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
const LIMITS: (keyof Limits)[] = ["tokens_per_day", "in_flight", "weight"];
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

/** The server does not tell the model of an answer in the arena: whoever looks here may be about to vote. */
export function modelText({ model }: RequestRow): string {
  return model || "not told before the vote";
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

/** What the user's conversations have; how full that is once it is nearly full. */
export function storedText({ conversation_bytes, most_conversation_bytes }: UsageRow): string {
  const percent = Math.round((100 * conversation_bytes) / most_conversation_bytes);
  return bytes(conversation_bytes) + (percent >= 80 ? ` (${percent} %)` : "");
}

export function storedFilesText({ file_bytes }: UsageRow): string {
  return file_bytes ? `+ ${bytes(file_bytes)} of files` : "";
}

/** Whose limits a user has: the user's own stand before those of the group. */
export function whose({ own, group }: UsageRow): string {
  const others = group ? `group ${group}` : "default";
  return own ? `own, else ${others}` : others;
}

/** The limits that somebody has entered into a form; a field that is left empty changes nothing. */
export function limitsOf(entered: FormData): Partial<Limits> {
  return Object.fromEntries(LIMITS.flatMap((name) => (entered.get(name) ? [[name, Number(entered.get(name))]] : [])));
}

/** The limits that a group sets; `the defaults` where it sets none. */
export function groupLimitsText({ limits: { tokens_per_day, in_flight, weight } }: Group): string {
  const words = [
    tokens_per_day !== undefined && aDay(tokens_per_day),
    in_flight !== undefined && atOnce(in_flight),
    weight !== undefined && weightText(weight),
  ];
  return words.filter(Boolean).join(", ") || "the defaults";
}

export function limitsText({ tokens_per_day, in_flight, weight }: Limits): string {
  return [aDay(tokens_per_day), atOnce(in_flight), weightText(weight)].join(", ");
}

function aDay(tokens: number): string {
  return tokens ? `${tokens.toLocaleString("en")} tokens a day` : "tokens without a limit";
}

function atOnce(requests: number): string {
  return requests ? `${count(requests, "request")} at once` : "requests without a limit";
}

function weightText(weight: number): string {
  return `weight ${weight.toLocaleString("en")}`;
}
