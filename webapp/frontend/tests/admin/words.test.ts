/** What the admin page says of queues, workers, requests, limits and the disk. */

import assert from "node:assert/strict";
import test from "node:test";
import type { Group, RedisRow, RequestRow, UsageRow, WorkerRow } from "../../src/admin/protocol";
import {
  diskFraction,
  groupLimitsText,
  lastSeen,
  limitsText,
  memoryText,
  modelText,
  namedEntries,
  redisText,
  reservedText,
  statusWord,
  storedFilesText,
  storedText,
  tokensText,
  waitingText,
  whose,
} from "../../src/admin/words";

test("only classes in which something waits are told, in the order of their turn", () => {
  const none = { number: 0, oldest_s: 0 };
  assert.equal(waitingText({ retried: none, interactive: none, batch: none }), "");
  assert.equal(
    waitingText({ retried: none, interactive: { number: 2, oldest_s: 4.4 }, batch: { number: 1, oldest_s: 120 } }),
    "2 interactive (oldest 4 s) · 1 batch (oldest 2 min)",
  );
});

test("a worker that announces itself is here now", () => {
  const seen = (age_s: number) => lastSeen({ age_s } as WorkerRow);
  assert.deepEqual([0, 2.9, 4].map(seen), ["now", "now", "4 s ago"]);
});

test("what an older build does not tell is left out", () => {
  assert.deepEqual([0, 700].map(memoryText), ["", "734 MB"]);
});

test("Redis is told with its limit where it has one", () => {
  const redis: RedisRow = {
    server: "Valkey",
    version: "9.1",
    primaries: 1,
    clients: 3,
    used_memory_mib: 100,
    memory_percent: 0,
  };
  assert.equal(redisText(redis), "Valkey 9.1 · 105 MB");
  assert.equal(redisText({ ...redis, memory_percent: 40, primaries: 3 }), "Valkey 9.1, 3 primaries · 105 MB, 40 %");
});

test("a state that a later build has is shown as it is", () => {
  const word = (status: string) => statusWord({ status } as RequestRow);
  assert.deepEqual(["new", "running", "thinking"].map(word), ["Waiting", "Running", "thinking"]);
});

test("tokens are told only where they are counted, with what is reserved", () => {
  const row = (more: Partial<UsageRow>) =>
    ({ counted: true, tokens_used: 1_200, tokens_reserved: 0, ...more }) as UsageRow;
  assert.deepEqual([row({}), row({ counted: false })].map(tokensText), ["1,200", ""]);
  assert.deepEqual([row({}), row({ tokens_reserved: 300 })].map(reservedText), ["", "+ 300 reserved"]);
  assert.equal(
    limitsText({ tokens_per_day: 0, in_flight: 1, weight: 2 }),
    "tokens without a limit, 1 request at once, weight 2",
  );
});

test("of a group the limits are told that it sets, and a user's own come before them", () => {
  const group = (limits: Group["limits"]) => groupLimitsText({ name: "lab", num_members: 1, limits });
  assert.deepEqual(
    [group({}), group({ tokens_per_day: 0 }), group({ in_flight: 2, weight: 3 })],
    ["the defaults", "tokens without a limit", "2 requests at once, weight 3"],
  );
  const row = (own: boolean, group: string) => whose({ own, group } as UsageRow);
  assert.deepEqual(
    [row(false, ""), row(false, "lab"), row(true, "lab"), row(true, "")],
    ["default", "group lab", "own, else group lab", "own, else default"],
  );
});

test("the model of an answer in the arena is not told", () => {
  assert.deepEqual(
    ["m", ""].map((model) => modelText({ model } as RequestRow)),
    ["m", "not told before the vote"],
  );
});

test("what is stored is told with how full that is once it is nearly full", () => {
  const row = (conversation_bytes: number, file_bytes: number) =>
    ({ conversation_bytes, most_conversation_bytes: 1_000, file_bytes, most_file_bytes: 10_000 }) as UsageRow;
  assert.deepEqual([row(0, 0), row(790, 0), row(800, 0)].map(storedText), ["0 bytes", "790 bytes", "800 bytes (80 %)"]);
  assert.deepEqual([row(0, 0), row(0, 2_000)].map(storedFilesText), ["", "+ 2.0 kB of files"]);
});

test("a disk of unknown size is not full", () => {
  const disk = (free_bytes: number, total_bytes: number) =>
    diskFraction({
      free_bytes,
      total_bytes,
      folder: "",
      few_bytes: 0,
      entries: [],
      database: { kind: "", bytes: 0, trouble: "" },
    });
  assert.deepEqual([disk(25, 100), disk(0, 0)], [0.75, 0]);
});

test("files without a name of ours are summed up, at the end", () => {
  const entries = [
    { name: "core.1", bytes: 9 },
    { name: "uploads", bytes: 5 },
    { name: "job_key", bytes: 1 },
  ];
  assert.deepEqual(namedEntries(entries), [
    { name: "Uploads", bytes: 5 },
    { name: "Other files", bytes: 10 },
  ]);
  assert.deepEqual(namedEntries([]), []);
});
