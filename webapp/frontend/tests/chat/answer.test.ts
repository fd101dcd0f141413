/** The cursor of one answer: offsets are code points, whatever the server sends twice, late or again. */

import assert from "node:assert/strict";
import test from "node:test";
import { applyDone, applyRewind, applyTokens, countCodePoints, cursorAt, split } from "../../src/chat/answer";

const id = "a";
const tokens = (offset: number, text: string, nonce = "n1") => ({ id, offset, nonce, text });

test("tokens at the end of what we hold are appended, and their nonce is kept", () => {
  const cursor = cursorAt("", "");
  assert.equal(applyTokens(cursor, tokens(0, "Hello")), "applied");
  assert.equal(applyTokens(cursor, tokens(5, " you", "n2")), "applied");
  assert.deepEqual(cursor, { text: "Hello you", length: 9, nonce: "n2", parts: [] });
});

test("an offset counts code points: an emoji is one, not two", () => {
  const cursor = cursorAt("", "");
  applyTokens(cursor, tokens(0, "👩‍🚀é𝔘"));
  assert.equal(cursor.length, 5);
  assert.equal(cursor.length, Array.from("👩‍🚀é𝔘").length);
  assert.equal(applyTokens(cursor, tokens(5, "!")), "applied");
});

test("a repeat is dropped and a gap asks to watch again; neither touches the text", () => {
  const cursor = cursorAt("abc", "n1");
  assert.equal(applyTokens(cursor, tokens(0, "abc", "n9")), "repeat");
  assert.equal(applyTokens(cursor, tokens(4, "e", "n9")), "gap");
  assert.deepEqual(cursor, { text: "abc", length: 3, nonce: "n1", parts: [] });
});

test("a rewind cuts at a code point and other text follows", () => {
  const cursor = cursorAt("a😀b😀c", "n1");
  assert.equal(applyRewind(cursor, { id, offset: 2, nonce: "n2" }), "applied");
  assert.deepEqual(cursor, { text: "a😀", length: 2, nonce: "n2", parts: [] });
  assert.equal(applyTokens(cursor, tokens(2, "z", "n2")), "applied");
  assert.equal(cursor.text, "a😀z");
});

test("a rewind beyond what we hold is a gap", () => {
  const cursor = cursorAt("ab", "n1");
  assert.equal(applyRewind(cursor, { id, offset: 3, nonce: "n2" }), "gap");
  assert.deepEqual(cursor, { text: "ab", length: 2, nonce: "n1", parts: [] });
});

test("the end counts only when the whole answer is here", () => {
  const done = { id, status: "finished" as const, code: "stop", offset: 3 };
  assert.equal(applyDone(cursorAt("ab", "n1"), done), "gap");
  assert.equal(applyDone(cursorAt("abc", "n1"), done), "applied");
});

test("counting agrees with Array.from for any mix, lone surrogates included", () => {
  for (const text of ["", "plain", "é", "😀😀", "\ud83d", "\ude00\ud83d", "x\ud83dx", "中文字"]) {
    assert.equal(countCodePoints(text), Array.from(text).length);
  }
});

test("any order of cuts, repeats and gaps ends with the server's text", () => {
  const answer = Array.from("The 😀 quick 𝔘 brown fox. ".repeat(20));
  let seed = 7;
  const random = (n: number) => {
    seed = (seed * 48271) % 2147483647;
    return seed % n;
  };
  const cursor = cursorAt("", "");
  for (let step = 0; step < 20_000 && cursor.length < answer.length; step++) {
    const offset = Math.max(0, cursor.length + random(5) - 2);
    const size = 1 + random(6);
    applyTokens(cursor, tokens(offset, answer.slice(offset, offset + size).join("")));
    if (random(9) === 0) applyRewind(cursor, { id, offset: Math.max(0, cursor.length + 2 - random(6)), nonce: "r" });
  }
  assert.equal(cursor.text, answer.join(""));
});

test("each text goes to its part, and offsets count both", () => {
  const cursor = cursorAt("", "");
  applyTokens(cursor, { ...tokens(0, "😀 hm"), part: "reasoning" });
  applyTokens(cursor, { ...tokens(4, "."), part: "reasoning" });
  applyTokens(cursor, tokens(5, "It is 4."));
  assert.deepEqual(split(cursor), { reasoning: "😀 hm.", answer: "It is 4." });
  assert.equal(cursor.length, 13);
});

test("a rewind into the reasoning takes the answer back", () => {
  const cursor = cursorAt("", "");
  applyTokens(cursor, { ...tokens(0, "😀 hm"), part: "reasoning" });
  applyTokens(cursor, tokens(4, "4"));
  applyRewind(cursor, { id, offset: 4, nonce: "n2" });
  assert.deepEqual(split(cursor), { reasoning: "😀 hm", answer: "" });
  applyTokens(cursor, { ...tokens(4, "?", "n2"), part: "reasoning" });
  assert.deepEqual(split(cursor), { reasoning: "😀 hm?", answer: "" });
});

test("the end tells the parts of text that an older page kept without them", () => {
  const cursor = cursorAt("😀 hm", "n1");
  applyTokens(cursor, tokens(4, "It is 4."));
  const parts: [number, string][] = [
    [0, "reasoning"],
    [4, "answer"],
  ];
  assert.equal(applyDone(cursor, { id, status: "finished", offset: 12, code: "stop", parts }), "applied");
  assert.deepEqual(split(cursor), { reasoning: "😀 hm", answer: "It is 4." });
});

test("a part that this page does not know is shown nowhere", () => {
  const cursor = cursorAt("", "");
  applyTokens(cursor, { ...tokens(0, "{}"), part: "tool_call" });
  applyTokens(cursor, tokens(2, "4"));
  assert.deepEqual(split(cursor), { reasoning: "", answer: "4" });
});
