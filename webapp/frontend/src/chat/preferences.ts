/** What the user chose, kept in the browser: model, system prompt, sampling. Theme has its own key, see shared/theme.ts. */

import type { Model, Sampling } from "./protocol";

export interface Preferences {
  model: string;
  system: string;
  /** null: the default of the model that answers. */
  own_temperature: number | null;
  max_new_tokens: number;
  /** Whether a model thinks that has the choice; null: as it does by itself. */
  thinking: boolean | null;
  /** Letters as shortcuts. */
  shortcuts: boolean;
}

type Stored = Partial<Preferences> & { temperature?: number };
const KEY = "chatserver.preferences";
export const DEFAULTS: Preferences = {
  model: "",
  system: "",
  own_temperature: null,
  max_new_tokens: 512,
  thinking: null,
  shortcuts: true,
};

export function loadPreferences(): Preferences {
  try {
    return read(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Stored);
  } catch {
    return { ...DEFAULTS };
  }
}

/** Once all models had one temperature, and the page stored it with any other choice: that one was chosen by nobody. */
function read({ temperature, ...stored }: Stored): Preferences {
  const before = temperature === undefined || temperature === 0.7 ? {} : { own_temperature: temperature };
  return { ...DEFAULTS, ...before, ...stored };
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

/** What a request says of thinking: nothing to a model without the choice. */
export function thinkingOf({ thinking }: Preferences, model: Model | undefined): { thinking?: boolean } {
  return thinking === null || !hasThinkingSwitch(model) ? {} : { thinking };
}

export function hasThinkingSwitch(model: Model | undefined): boolean {
  return model?.supports?.includes("thinking") ?? false;
}

export function samplingOf({ own_temperature, max_new_tokens }: Preferences): Sampling {
  return own_temperature === null ? { max_new_tokens } : { temperature: own_temperature, max_new_tokens };
}
