/** What the user chose, kept in the browser: model, system prompt, sampling. Theme has its own key, see shared/theme.ts. */

import type { Sampling } from "./protocol";

export interface Preferences {
  model: string;
  system: string;
  temperature: number;
  max_new_tokens: number;
}

const KEY = "chatserver.preferences";
export const DEFAULTS: Preferences = { model: "", system: "", temperature: 0.7, max_new_tokens: 512 };

export function loadPreferences(): Preferences {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Preferences>) };
  } catch {
    return { ...DEFAULTS };
  }
}

/** False when the browser's storage refused. */
export function savePreferences(change: Partial<Preferences>): boolean {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...loadPreferences(), ...change }));
    return true;
  } catch {
    return false;
  }
}

export function samplingOf({ temperature, max_new_tokens }: Preferences): Sampling {
  return { temperature, max_new_tokens };
}
