/** Which temperature the page sends, and when it leaves the choice to the model. */

import assert from "node:assert/strict";
import test, { beforeEach } from "node:test";
import { loadPreferences, samplingOf, savePreferences, thinkingOf } from "../../src/chat/preferences";
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
  assert.deepEqual(samplingOf(loadPreferences()), { max_new_tokens: 512 });
});

test("a chosen temperature is sent, also one that was every model's default once", () => {
  savePreferences({ own_temperature: 0.7 });
  assert.deepEqual(samplingOf(loadPreferences()), { temperature: 0.7, max_new_tokens: 512 });
  savePreferences({ own_temperature: 0 });
  assert.equal(samplingOf(loadPreferences()).temperature, 0);
});

test("a temperature that the page stored by itself before does not count as chosen", () => {
  stored.set("chatserver.preferences", JSON.stringify({ model: "m", temperature: 0.7 }));
  assert.equal(loadPreferences().own_temperature, null);
  stored.set("chatserver.preferences", JSON.stringify({ model: "m", temperature: 1.2 }));
  assert.equal(loadPreferences().own_temperature, 1.2);
  savePreferences({ own_temperature: null });
  assert.equal(loadPreferences().own_temperature, null);
});

test("whether to think is told only to a model that has the choice, and only if somebody chose", () => {
  const model = { name: "m", supports: ["thinking"] } as unknown as Model;
  assert.deepEqual(thinkingOf(loadPreferences(), model), {});
  savePreferences({ thinking: false });
  assert.deepEqual(thinkingOf(loadPreferences(), model), { thinking: false });
  assert.deepEqual(thinkingOf(loadPreferences(), { ...model, supports: [] }), {});
  assert.deepEqual(thinkingOf(loadPreferences(), undefined), {});
});
