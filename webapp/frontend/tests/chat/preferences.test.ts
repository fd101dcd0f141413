/** Which temperature the page sends, and when it leaves the choice to the model. */

import assert from "node:assert/strict";
import test, { beforeEach } from "node:test";
import { choicesOf, loadPreferences, savePreferences, settingsOf, thinkingOf } from "../../src/chat/preferences";
import type { Model } from "../../src/chat/protocol";

const stored = new Map<string, string>();

beforeEach(() => {
  stored.clear();
  const localStorage = {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => stored.set(key, value),
  };
  Object.defineProperty(globalThis, "localStorage", { value: localStorage, configurable: true });
});

test("a temperature that nobody chose is left to the model", () => {
  savePreferences({ model: "m" });
  assert.deepEqual(loadPreferences().sampling, { max_new_tokens: 512 });
});

test("a chosen temperature is sent, also one that was every model's default once", () => {
  savePreferences({ sampling: { temperature: 0.7, max_new_tokens: 512 } });
  assert.deepEqual(loadPreferences().sampling, { temperature: 0.7, max_new_tokens: 512 });
  savePreferences({ sampling: { temperature: 0 } });
  assert.equal(loadPreferences().sampling.temperature, 0);
});

test("a temperature that the page stored by itself before does not count as chosen", () => {
  stored.set("chatserver.preferences", JSON.stringify({ model: "m", temperature: 0.7 }));
  assert.equal(loadPreferences().sampling.temperature, undefined);
  stored.set("chatserver.preferences", JSON.stringify({ model: "m", temperature: 1.2 }));
  assert.equal(loadPreferences().sampling.temperature, 1.2);
  savePreferences({ sampling: {} });
  assert.equal(loadPreferences().sampling.temperature, undefined);
});

test("whether to think is told only to a model that has the choice, and only if somebody chose", () => {
  const model = { name: "m", supports: ["thinking"] } as unknown as Model;
  assert.deepEqual(thinkingOf(loadPreferences(), model), {});
  savePreferences({ thinking: false });
  assert.deepEqual(thinkingOf(loadPreferences(), model), { thinking: false });
  assert.deepEqual(thinkingOf(loadPreferences(), { ...model, supports: [] }), {});
  assert.deepEqual(thinkingOf(loadPreferences(), undefined), {});
});

test("what an earlier page stored option by option is read", () => {
  stored.set("chatserver.preferences", JSON.stringify({ own_temperature: 0.3, max_new_tokens: 9, system: "be kind" }));
  assert.deepEqual(loadPreferences().sampling, { temperature: 0.3, max_new_tokens: 9 });
  assert.equal(loadPreferences().system, "be kind");
});

test("a conversation keeps the choices that the settings dialog gave it", () => {
  const choices = { system: "be kind", sampling: { top_p: 0.9, stop: ["END"] }, thinking: false };
  assert.deepEqual(choicesOf({ system: "be kind", settings: settingsOf(choices) }), choices);
  assert.equal(choicesOf({ system: "", settings: {} }).thinking, null);
});
