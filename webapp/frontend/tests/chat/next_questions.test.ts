/** Questions that wait for the running answer. */

import assert from "node:assert/strict";
import test from "node:test";
import { NextQuestions } from "../../src/chat/next_questions";
import { FakeStorage } from "./made";

const question = (n: number) => ({ questionId: `q${n}`, answerId: `a${n}`, content: `question ${n}` });

test("they wait in order, apart for each conversation, over a reload", () => {
  const storage = new FakeStorage();
  const next = new NextQuestions(storage);
  next.add("c", question(1));
  next.add("c", question(2));
  next.add("d", question(3));
  assert.deepEqual(new NextQuestions(storage).list("c"), [question(1), question(2)]);
  next.remove("c", question(1));
  assert.deepEqual(next.list("c"), [question(2)]);
  next.remove("c", question(2));
  assert.equal(storage.length, 1);
});

test("a full storage is told", () => {
  const storage = new FakeStorage();
  storage.limit = 5;
  assert.equal(new NextQuestions(storage).add("c", question(1)), false);
});
