/** Imports flow one way between the rooms: pages import shared and nothing of each other; arena reads answers as chat does. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";

const SRC = "src"; // npm runs scripts in the folder of package.json
const ALLOWED: Record<string, string[]> = {
  chat: ["chat", "shared"],
  jobs: ["jobs", "shared"],
  arena: ["arena", "chat", "shared"],
  admin: ["admin", "shared"],
  shared: ["shared"],
};

/** `[importing file, imported path]` of every import of our own in one file's text: static, type-only and dynamic. */
function importsOf(file: string, text: string): [string, string][] {
  const written = [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*["'](\.[^"']*)["']/g)];
  return written.map((match) => [file, join(file, "..", match[1] as string)]);
}

function roomOf(path: string): string {
  return path.split("/")[0] as string;
}

function strays(imports: [string, string][]): string[] {
  return imports
    .filter(([from, to]) => !ALLOWED[roomOf(from)]?.includes(roomOf(to)))
    .map(([from, to]) => `${from} imports ${to}`);
}

test("each page imports shared, and no room imports any other", () => {
  const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
  const imports = files.flatMap((file) => importsOf(file, readFileSync(join(SRC, file), "utf8")));
  for (const page of ["chat", "jobs", "admin"])
    assert.ok(imports.some(([from, to]) => roomOf(from) === page && roomOf(to) === "shared"));
  assert.deepEqual(
    files.filter((file) => !(roomOf(file) in ALLOWED)),
    [],
    "a file outside the rooms",
  );
  assert.deepEqual(strays(imports), []);
});

test("every way to write a forbidden import is found", () => {
  const written = [
    'import { api } from "../jobs/api";',
    'import type { Job } from "../jobs/protocol";',
    'export * from "../jobs/words";',
    'import "../jobs/main";',
    'const later = import("../jobs/main");',
    'import {\n  api,\n} from "../jobs/api";',
  ];
  for (const line of written) assert.equal(strays(importsOf("chat/main.ts", line)).length, 1, line);
  assert.deepEqual(strays(importsOf("shared/dom.ts", 'import { h } from "../chat/main";')), [
    "shared/dom.ts imports chat/main",
  ]);
  assert.deepEqual(
    strays(importsOf("chat/main.ts", 'import { io } from "socket.io-client"; import { h } from "../shared/dom";')),
    [],
  );
});
