/** What a question brings along of its conversation, and when it is too large. */

import assert from "node:assert/strict";
import test from "node:test";
import { describeTooLarge, saidBefore } from "../../src/chat/prompt";
import type { Message, MessageState } from "../../src/chat/tree";
import { chain, message } from "./made";

const LIMITS = { characters: 1_000, bytes: 10_000 };

function said(...rounds: [string, string?, MessageState?][]): Message[] {
  return chain(
    ...rounds.flatMap(([question, answer = "", state = "finished"], n) => [
      message(`q${n}`, "user", question),
      message(`a${n}`, "assistant", answer, { state }),
    ]),
  );
}

const contents = (path: Message[], id: string) => saidBefore(path, id).map((one) => one.content);

test("a question without an answer is not part of a later one", () => {
  const path = said(
    ["failed", "half", "failed"],
    ["stopped", "", "cancelled"],
    ["silence", " ", "finished"],
    ["open", "so far", "open"],
    ["answered", "yes"],
    ["now?"],
  );
  assert.deepEqual(contents(path, "a5"), ["answered", "yes", "now?"]);
});

test("a stopped answer counts as far as it came", () => {
  assert.deepEqual(contents(said(["sea?", "The sea", "cancelled"], ["go on"]), "a1"), ["sea?", "The sea", "go on"]);
});

test("asking an earlier question again brings what came before it", () => {
  assert.deepEqual(contents(said(["one", "1"], ["two", "2"], ["three", "3"]), "a1"), ["one", "1", "two"]);
});

test("a question that is too large alone is refused with both sizes", () => {
  assert.equal(describeTooLarge("x".repeat(1_000), "", LIMITS), "");
  assert.match(
    describeTooLarge("x".repeat(1_301), "", LIMITS),
    /^Your message has 1,301 characters; this server reads 1,000 at most/,
  );
  assert.match(describeTooLarge("x".repeat(900), "y".repeat(200), LIMITS), /^Your message and the system prompt have/);
  assert.match(
    describeTooLarge("\u0001".repeat(900), "", { ...LIMITS, bytes: 5_000 }),
    /^Your message has 6,\d\d\d bytes; this server reads 5,000 at most/,
  );
});
