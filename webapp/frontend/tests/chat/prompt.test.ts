/** What a question brings along of its conversation. */

import assert from "node:assert/strict";
import test from "node:test";
import type { Conversation, Message, MessageState } from "../../src/chat/conversations";
import { describeTooLarge, promptFor } from "../../src/chat/prompt";

const LIMITS = { characters: 1_000, bytes: 10_000, messages: 2_000 };

function conversation(...said: [string, string?, MessageState?][]): Conversation {
  const messages = said.flatMap(([question, answer = "", state = "finished"], n): Message[] => [
    { id: `q${n}`, role: "user", content: question, state: "finished", created_ms: 0 },
    { id: `a${n}`, role: "assistant", content: answer, state, created_ms: 0 },
  ]);
  return { id: "c", title: "t", model: "m", system: "", updated_ms: 0, messages };
}

const contents = (c: Conversation, id: string, limits = LIMITS) =>
  promptFor(c, id, "", limits).messages.map((message) => message.content);

test("the system comes first, then the answered rounds, then the question", () => {
  assert.deepEqual(promptFor(conversation(["one", "1"], ["two"]), "a1", "be kind", LIMITS).messages, [
    { role: "system", content: "be kind" },
    { role: "user", content: "one" },
    { role: "assistant", content: "1" },
    { role: "user", content: "two" },
  ]);
});

test("a question without an answer is not part of a later one", () => {
  const c = conversation(
    ["failed", "half", "failed"],
    ["stopped", "", "cancelled"],
    ["silence", " ", "finished"],
    ["open", "so far", "running"],
    ["answered", "yes"],
    ["now?"],
  );
  assert.deepEqual(contents(c, "a5"), ["answered", "yes", "now?"]);
});

test("no more messages are sent than the server takes", () => {
  const c = conversation(["one", "1"], ["two", "2"], ["now?"]);
  assert.deepEqual(contents(c, "a2", { ...LIMITS, messages: 5 }), ["one", "1", "two", "2", "now?"]);
  assert.deepEqual(contents(c, "a2", { ...LIMITS, messages: 4 }), ["two", "2", "now?"]);
});

test("a stopped answer counts as far as it came", () => {
  assert.deepEqual(contents(conversation(["sea?", "The sea", "cancelled"], ["go on"]), "a1"), [
    "sea?",
    "The sea",
    "go on",
  ]);
});

test("asking an earlier question again brings what came before it", () => {
  assert.deepEqual(contents(conversation(["one", "1"], ["two", "2"], ["three", "3"]), "a1"), ["one", "1", "two"]);
});

test("of a conversation longer than one message to the server the newest rounds are sent", () => {
  const c = conversation(["one", "1".repeat(600)], ["two", "2".repeat(300)], ["three", "3".repeat(300)], ["now?"]);
  const prompt = promptFor(c, "a3", "be kind", LIMITS);
  assert.deepEqual(
    prompt.said.map((message) => message.id),
    ["q1", "a1", "q2", "a2", "q3"],
  );
  assert.equal(prompt.omitted, 2);
  assert.equal(prompt.messages[0]?.content, "be kind");
});

test("bytes are counted as they are sent: escaped, and as UTF-8", () => {
  const escaped = conversation(["one", "\u0001".repeat(300)], ["now?"]);
  assert.deepEqual(contents(escaped, "a1", { ...LIMITS, bytes: 3_000 }), ["one", "\u0001".repeat(300), "now?"]);
  assert.deepEqual(contents(escaped, "a1", { ...LIMITS, bytes: 2_800 }), ["now?"]);
  assert.deepEqual(contents(conversation(["one", "汉".repeat(600)], ["now?"]), "a1", { ...LIMITS, bytes: 2_800 }), [
    "now?",
  ]);
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

test("the reasoning goes along beside its answer, and counts", () => {
  const said = conversation(["one", "1"], ["two"]);
  (said.messages[1] as Message).reasoning = "x".repeat(50);
  assert.deepEqual(promptFor(said, "a1", "", LIMITS).messages[1], {
    role: "assistant",
    content: "1",
    reasoning: "x".repeat(50),
  });
  assert.equal(promptFor(said, "a1", "", { ...LIMITS, characters: 40 }).omitted, 2);
});
