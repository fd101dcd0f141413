/** What the page says while an answer waits and after it ended. */

import assert from "node:assert/strict";
import test from "node:test";
import type { Message } from "../../src/chat/tree";
import {
  canContinue,
  describeContext,
  describeElapsed,
  describeMissing,
  describeModel,
  describeOmission,
  describeThinking,
  describeUsage,
  describeWaiting,
  omissionOf,
} from "../../src/chat/words";
import { describeError } from "../../src/shared/errors";
import { chain, message as made } from "./made";

const message = (more: Partial<Message> = {}): Message => made("a", "assistant", "", { state: "open", ...more });
const progress = (more: object = {}) => ({
  phase: "queued" as const,
  position: undefined,
  eta_s: undefined,
  cancelling: false,
  cursor: { length: 0 },
  ...more,
});

test("the place in the queue is told in words", () => {
  const words = (position: number) => describeWaiting(message(), progress({ position }));
  assert.equal(words(0), "You are next");
  assert.equal(words(1), "1 request ahead of you");
  assert.equal(words(2), "2 requests ahead of you");
  assert.equal(words(1000), "1,000 requests ahead of you");
});

test("the time until a worker comes is told roughly, and not at all when it is now", () => {
  const words = (eta_s: number) => describeWaiting(message(), progress({ position: 2, eta_s }));
  assert.equal(words(1), "2 requests ahead of you");
  assert.equal(words(8), "2 requests ahead of you, about 8 s");
  assert.equal(words(23), "2 requests ahead of you, about 25 s");
  assert.equal(words(130), "2 requests ahead of you, about 2 min");
});

test("each state has its words, and text that flows needs none", () => {
  const words = (more: object) => describeWaiting(message(), progress(more));
  assert.equal(words({ phase: "sending" }), "Sending…");
  assert.equal(words({ phase: "no_worker", position: 0 }), "Waiting for a worker that serves echo");
  assert.equal(words({ phase: "loading", position: 0 }), "Waiting while a worker loads echo");
  assert.equal(words({ phase: "running" }), "Reading the prompt…");
  assert.equal(words({ phase: "running", cursor: { length: 1 } }), "");
  assert.equal(words({ phase: "interrupted", cursor: { length: 1 } }), "Interrupted. It continues by itself.");
  assert.equal(words({ phase: "interrupted", cancelling: true }), "Stopping…");
});

test("the time that it has been so is told once it is worth it", () => {
  assert.equal(describeElapsed(1_000, 3_900), "");
  assert.equal(describeElapsed(1_000, 4_000), "3 s");
  assert.equal(describeElapsed(0, 125_000), "2 min 5 s");
});

test("a model without a worker says whether one is to come", () => {
  const model = (state: "served" | "loading" | "wanted" | "away", workers = 0, queued = 0) => ({
    name: "july",
    workers,
    slots: 4,
    running: 0,
    queued,
    tokens_per_s: 0,
    context_tokens: 100,
    state,
  });
  assert.equal(describeModel(model("loading")), "july (loading)");
  assert.equal(describeModel(model("wanted")), "july (waiting for a worker)");
  assert.equal(describeModel(model("away")), "july (no worker)");
  assert.equal(describeModel(model("served", 1, 2)), "july (2 waiting)");
  assert.equal(
    describeMissing(model("loading"), true),
    "A worker is loading july. A question waits until the model is loaded.",
  );
  assert.match(describeMissing(model("away"), true), /No worker is serving july right now/);
  assert.match(describeMissing(model("away"), false), /^No worker is serving right now/);
  assert.equal(describeMissing(model("served", 1), true), "");
});

test("the rate leaves out the time before the first token", () => {
  const usage = { completion_tokens: 1280, first_token_ms: 1000, total_ms: 11_000 };
  assert.equal(describeUsage(message({ state: "finished", usage, code: "stop" })), "1,280 tokens · 128 tokens/s");
  assert.equal(
    describeUsage(message({ state: "finished", usage: { completion_tokens: 1 }, code: "length" })),
    "Reached the token limit · 1 token",
  );
  const full = { prompt_tokens: 500, completion_tokens: 12, context_tokens: 512 };
  assert.equal(
    describeUsage(message({ state: "finished", usage: full, code: "length" })),
    "The context is full · 12 tokens",
  );
  assert.equal(describeUsage(message({ state: "cancelled" })), "Stopped");
});

test("the verdict of the moderation on an answer is told", () => {
  const moderation = { question: "flag: odd", answer: "refuse: bad" };
  assert.equal(describeUsage(message({ state: "finished", extra: { moderation } })), "Moderation: refuse: bad");
});

test("an error is told with its remedy", () => {
  assert.equal(describeError({ message: "no room" }), "no room");
  assert.equal(
    describeError({ message: "no cloud is set up", remedy: "run `sky check`" }),
    "no cloud is set up. Remedy: run `sky check`",
  );
});

test("how full the context is is told by the newest answer that knows", () => {
  const usage = { prompt_tokens: 5000, completion_tokens: 1144, context_tokens: 8192 };
  const told = message({ state: "finished", usage });
  assert.equal(describeContext([told, message({ state: "failed" })], ""), "Context 75% full (6,144 of 8,192 tokens)");
  assert.equal(describeContext([message({ state: "finished", usage: { completion_tokens: 3 } })], ""), "");
});

test("what is typed is counted roughly, with what is left, also before the first answer", () => {
  const told = message({ state: "finished", usage: { prompt_tokens: 90, completion_tokens: 10, context_tokens: 200 } });
  assert.equal(describeContext([told], "x".repeat(41)), "About 11 tokens typed, about 89 left in the context");
  assert.equal(describeContext([], "hey", 100), "About 1 token typed, about 99 left in the context");
  assert.equal(describeContext([told], "x".repeat(900)), "About 225 tokens typed, about 0 left in the context");
  assert.equal(describeContext([], "hey"), "");
});

test("the mark of the context belongs to the newest answer, and an answer that read everything has none", () => {
  const rounds = [1, 2, 3].flatMap((n) => [made(`q${n}`, "user", `${n}`), made(`a${n}`, "assistant", `${n}`)]);
  const cut = message({ id: "a4", state: "cancelled", usage: { omitted_messages: 2, context_tokens: 8192 } });
  const path = chain(...rounds, made("q4", "user", "4"), { ...cut, extra: { omitted: 2 } });
  const omission = { first: "q3", omitted: 4, context_tokens: 8192 };
  assert.deepEqual(omissionOf([...path, message({ id: "a5" })]), omission);
  assert.equal(omissionOf([...path, message({ id: "a5", state: "finished" })]), undefined);
  assert.equal(
    describeOmission({ ...omission, omitted: 1200 }),
    "The model reads from here on: 1,200 earlier messages no longer fit its context (8,192 tokens)",
  );
});

test("an answer can go on that was stopped, failed or reached its length, if there is room", () => {
  const can = (more: Partial<Message>) => canContinue(message({ content: "half", ...more }));
  assert.ok(can({ state: "cancelled" }));
  assert.ok(can({ state: "failed" }));
  assert.ok(can({ state: "finished", code: "length" }));
  assert.ok(!can({ state: "finished", code: "stop" }));
  assert.ok(!can({ state: "cancelled", content: "" }));
  assert.ok(
    !can({ state: "finished", code: "length", usage: { prompt_tokens: 5, completion_tokens: 5, context_tokens: 10 } }),
  );
});

test("a reasoning says since when it goes on, and how long it took", () => {
  assert.equal(describeThinking({ thinkingSince_ms: 1_000 }, undefined, 2_000), "Thinking…");
  assert.equal(describeThinking({ thinkingSince_ms: 1_000 }, undefined, 13_400), "Thinking… 12 s");
  assert.equal(describeThinking(undefined, 12_400), "Thought for 12 s");
  assert.equal(describeThinking(undefined, 400), "Thought for a moment");
  assert.equal(describeThinking(undefined, undefined), "Thought");
});

test("an answer that is only reasoning says so", () => {
  const only = message({ state: "finished", reasoning: "hm", content: "", usage: {}, code: "length" });
  assert.equal(describeUsage(only), "Reached the token limit · No answer: the model only thought");
});
