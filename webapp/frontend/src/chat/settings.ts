/** The settings dialog: system prompt, temperature, length, thinking, theme. They apply from the next message on. */

import { byId, setText } from "../shared/dom";
import { chooseTheme, isDark } from "../shared/theme";
import { DEFAULTS, hasThinkingSwitch, loadPreferences, type Preferences, savePreferences } from "./preferences";
import type { Model } from "./protocol";

/** Of a model that names none; its worker may have gone. */
const USUAL_TEMPERATURE = 0.7;
const THINKING = new Map<string, boolean | null>([
  ["own", null],
  ["on", true],
  ["off", false],
]);

export class Settings {
  private dialog = byId<HTMLDialogElement>("settings");
  private system = byId<HTMLTextAreaElement>("setting-system");
  private temperature = byId<HTMLInputElement>("setting-temperature");
  private length = byId<HTMLInputElement>("setting-max-tokens");
  private own_temperature: number | null = null;
  private thinking = byId<HTMLSelectElement>("setting-thinking");
  private theme = byId<HTMLSelectElement>("setting-theme");

  /** `model`: the one that is chosen now. */
  constructor(
    private storageFull: () => void,
    private model: () => Model | undefined,
  ) {
    byId("open-settings").onclick = () => this.open();
    byId("settings-reset").onclick = () => this.fill(DEFAULTS);
    this.temperature.oninput = () => this.showTemperature(Number(this.temperature.value));
    this.theme.onchange = () => this.setTheme(this.theme.value);
    this.dialog.addEventListener("close", () => {
      if (this.dialog.returnValue === "save") this.save();
    });
    byId("toggle-theme").onclick = () => this.setTheme(isDark() ? "light" : "dark");
  }

  private open(): void {
    this.fill(loadPreferences());
    byId("thinking-choice").hidden = !hasThinkingSwitch(this.model());
    this.theme.value = document.documentElement.dataset.theme ?? "system";
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }

  private fill(from: Preferences): void {
    this.system.value = from.system;
    this.length.value = String(from.max_new_tokens);
    this.thinking.value = [...THINKING].find(([, value]) => value === from.thinking)?.[0] ?? "own";
    this.showTemperature(from.own_temperature);
  }

  private showTemperature(own: number | null): void {
    const value = own ?? this.model()?.sampling?.temperature ?? USUAL_TEMPERATURE;
    this.own_temperature = own;
    this.temperature.value = String(value);
    const number = value === 0 ? "0 (always the likeliest word)" : value.toFixed(1);
    setText(byId("temperature-value"), own === null ? `${number}, this model's default` : number);
  }

  private save(): void {
    const saved = savePreferences({
      system: this.system.value,
      own_temperature: this.own_temperature,
      thinking: THINKING.get(this.thinking.value) ?? null,
      max_new_tokens: Math.max(1, Math.round(Number(this.length.value)) || DEFAULTS.max_new_tokens),
    });
    if (!saved) this.storageFull();
  }

  private setTheme(theme: string): void {
    if (!chooseTheme(theme)) this.storageFull();
  }
}
