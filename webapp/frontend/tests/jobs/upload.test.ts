/** Uploads against a server that loses, repeats and forgets. */

import assert from "node:assert/strict";
import test from "node:test";
import { ApiError } from "../../src/jobs/api";
import { told } from "../../src/jobs/job_page";
import { isAfter } from "../../src/jobs/log_view";
import type { UploadState } from "../../src/jobs/protocol";
import { rangeOf } from "../../src/jobs/recipe_editor";
import { memoryKey, sendFile } from "../../src/jobs/upload";
import { nextDelay } from "../../src/shared/polling";

const PIECE = 4;

class Server {
  files = new Map<string, { size: number; data: string }>();
  /** What happens instead of the next requests; undefined: they are served. */
  faults: (undefined | "lost before" | "lost after" | "full" | "forgotten")[] = [];
  offsets: number[] = [];

  async createUpload(name: string, size: number): Promise<UploadState> {
    const id = `u${this.files.size}`;
    this.files.set(id, { size, data: "" });
    return { id, name, size, offset: 0, piece_bytes: PIECE };
  }

  async upload(id: string): Promise<UploadState> {
    const { size, data } = this.found(id);
    return { id, name: "", size, offset: data.length, piece_bytes: PIECE };
  }

  async sendPiece(id: string, offset: number, piece: Blob): Promise<{ offset: number }> {
    this.offsets.push(offset);
    const fault = this.faults.shift();
    if (fault === "lost before") throw new ApiError(0, "unreachable", "lost");
    if (fault === "full") throw new ApiError(507, "storage_full", "full");
    if (fault === "forgotten") this.files.delete(id);
    const file = this.found(id);
    const text = await piece.text();
    if (offset === file.data.length) file.data += text;
    else if (file.data.slice(offset, offset + text.length) !== text)
      throw new ApiError(409, "conflict", "offset", undefined, file.data.length);
    if (fault === "lost after") throw new ApiError(0, "unreachable", "lost");
    return { offset: file.data.length };
  }

  private found(id: string) {
    const file = this.files.get(id);
    if (!file) throw new ApiError(410, "gone", "gone");
    return file;
  }
}

class Memory {
  values = new Map<string, string>();
  getItem = (key: string) => this.values.get(key) ?? null;
  setItem = (key: string, value: string) => void this.values.set(key, value);
  removeItem = (key: string) => void this.values.delete(key);
}

const file = (text: string) => new File([text], "talk.json", { lastModified: 7 });

function around(server: Server, memory = new Memory(), stopping = new AbortController()) {
  const pauses: number[] = [];
  const told: number[] = [];
  return {
    server,
    memory,
    signal: stopping.signal,
    pauses,
    told,
    tell: (offset: number) => void told.push(offset),
    trouble: () => {},
    pause: async (ms: number): Promise<void> => void pauses.push(ms),
  };
}

test("a file arrives whole, piece by piece", async () => {
  const server = new Server();
  const here = around(server);
  const id = await sendFile(file("0123456789"), here);
  assert.equal(server.files.get(id)?.data, "0123456789");
  assert.deepEqual(server.offsets, [0, 4, 8]);
  assert.deepEqual(here.told, [0, 4, 8, 10]);
});

test("what is lost on the way, there or back, is sent again with growing pauses", async () => {
  const server = new Server();
  server.faults = ["lost after", "lost before", "lost before", undefined, "lost after"];
  const here = around(server);
  const id = await sendFile(file("0123456789"), here);
  assert.equal(server.files.get(id)?.data, "0123456789");
  assert.deepEqual(here.pauses, [500, 1000, 2000, 500]);
});

test("a file that is chosen again goes on where it stood", async () => {
  const server = new Server();
  const memory = new Memory();
  server.faults = [undefined, "full"];
  await assert.rejects(sendFile(file("0123456789"), around(server, memory)), /full/);
  server.offsets = [];
  await sendFile(file("0123456789"), around(server, memory));
  assert.deepEqual(server.offsets, [4, 8]);
  assert.notEqual(memoryKey(file("0123456789")), memoryKey(new File(["0123456789"], "talk.json", { lastModified: 8 })));
});

test("two tabs that send the same file both end with it whole", async () => {
  const server = new Server();
  const memory = new Memory();
  const text = "0123456789".repeat(5);
  await server.createUpload("talk.json", text.length);
  memory.setItem(memoryKey(file(text)), "u0");
  const ids = await Promise.all([1, 2].map(() => sendFile(file(text), around(server, memory))));
  assert.deepEqual(ids, ["u0", "u0"]);
  assert.equal(server.files.get("u0")?.data, text);
});

test("an upload that the server forgot begins anew, at the start and on the way", async () => {
  const server = new Server();
  const memory = new Memory();
  memory.setItem(memoryKey(file("01234567")), "unknown");
  server.faults = [undefined, "forgotten"];
  const id = await sendFile(file("01234567"), around(server, memory));
  assert.equal(server.files.get(id)?.data, "01234567");
  assert.deepEqual(server.offsets, [0, 4, 0, 4]);
});

test("stopping ends it even while the server is away", async () => {
  const server = new Server();
  server.faults = Array.from({ length: 100 }, () => "lost before" as const);
  const stopping = new AbortController();
  const here = around(server, new Memory(), stopping);
  here.pause = async () => stopping.abort();
  await assert.rejects(sendFile(file("01"), here), { name: "AbortError" });
  assert.equal(server.offsets.length, 1);
});

test("the page asks every second, seldom when hidden, slower when nobody answers, and not for ever", () => {
  assert.equal(nextDelay({ unfinished: true, hidden: false, failures: 0 }), 1_000);
  assert.equal(nextDelay({ unfinished: true, hidden: true, failures: 0 }), 15_000);
  assert.equal(nextDelay({ unfinished: false, hidden: false, failures: 0 }), undefined);
  assert.deepEqual(
    [1, 2, 3, 9].map((failures) => nextDelay({ unfinished: false, hidden: false, failures })),
    [1_000, 2_000, 4_000, 10_000],
  );
});

test("a line of a text is found, also the last and one that is not there", () => {
  const text = "name: a\nsteps:\n  - x";
  const line = (number: number) => text.slice(...rangeOf(text, number));
  assert.deepEqual([1, 2, 3, 9].map(line), ["name: a", "steps:", "  - x", "  - x"]);
});

test("log ids are compared as numbers", () => {
  assert.ok(isAfter("10-0", "9-5") && isAfter("9-10", "9-9") && !isAfter("9-9", "9-9") && isAfter("1-0", "0"));
});

test("an error is told by its sentence, its traceback folded", () => {
  assert.deepEqual(told("disk full"), { title: "disk full", trace: "" });
  assert.equal(told("Traceback (most recent call last):\n  File x\nOSError: no\n").title, "OSError: no");
  assert.equal(told("shard-0-00001 was given up\nTraceback …\nOSError").title, "shard-0-00001 was given up");
});
