/**
 * What the user chose, kept in the browser: the model and the choices for conversations to come, named sets of choices
 * (*presets*), and whether letters are shortcuts. Theme has its own key, see shared/theme.ts.
 */

import type { Model, Sampling } from "./protocol";
import type { ConversationSettings } from "./tree";

/** How a model is asked. A conversation has its own, which the server keeps. */
export interface Choices {
  system: string;
  /** What is left out is the model's own. */
  sampling: Sampling;
  /** Whether a model thinks that has the choice; null: as it does by itself. */
  thinking: boolean | null;
}

export interface Preferences extends Choices {
  model: string;
  /** Letters as shortcuts. */
  shortcuts: boolean;
  presets: Record<string, Choices>;
}

/** Earlier pages stored two options of sampling by themselves. */
type Stored = Partial<Preferences> & { temperature?: number; own_temperature?: number | null; max_new_tokens?: number };
const KEY = "chatserver.preferences";
const USUAL_LENGTH = 512;
export const DEFAULTS: Preferences = {
  model: "",
  system: "",
  sampling: { max_new_tokens: USUAL_LENGTH },
  thinking: null,
  shortcuts: true,
  presets: {},
};

export function loadPreferences(): Preferences {
  try {
    return read(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Stored);
  } catch {
    return { ...DEFAULTS };
  }
}

function read({ temperature, own_temperature, max_new_tokens, ...stored }: Stored): Preferences {
  // Once all models had one temperature, and the page stored it with any other choice: that one was chosen by nobody.
  const chosen = own_temperature ?? (temperature === 0.7 ? undefined : temperature);
  const before: Sampling = {
    max_new_tokens: max_new_tokens ?? USUAL_LENGTH,
    ...(chosen !== undefined && { temperature: chosen }),
  };
  return { ...DEFAULTS, sampling: before, ...stored };
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
export function thinkingOf({ thinking }: Pick<Choices, "thinking">, model: Model | undefined): { thinking?: boolean } {
  return thinking === null || !hasThinkingSwitch(model) ? {} : { thinking };
}

export function hasThinkingSwitch(model: Model | undefined): boolean {
  return model?.supports?.includes("thinking") ?? false;
}

/** As the server keeps them of a conversation. */
export function settingsOf({ sampling, thinking }: Choices): ConversationSettings {
  return { sampling, ...(thinking !== null && { thinking }) };
}

export function choicesOf({ system, settings }: { system: string; settings: ConversationSettings }): Choices {
  return { system, sampling: settings.sampling ?? DEFAULTS.sampling, thinking: settings.thinking ?? null };
}
