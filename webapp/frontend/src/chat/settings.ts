/**
 * The settings dialog: system prompt, sampling, thinking, presets, theme. In a conversation it shows that conversation's
 * choices, else those for conversations to come. They apply from the next message on.
 */

import { byId, setText } from "../shared/dom";
import { chooseTheme, isDark } from "../shared/theme";
import { type Choices, DEFAULTS, hasThinkingSwitch } from "./preferences";
import { Presets } from "./presets";
import type { Model } from "./protocol";
import { SamplingForm } from "./sampling_form";

/** Of a model that names none; its worker may have gone. */
const USUAL_TEMPERATURE = 0.7;
const THINKING = new Map<string, boolean | null>([
  ["own", null],
  ["on", true],
  ["off", false],
]);

/** What the dialog edits. */
export interface Subject {
  /** In words. */
  scope: string;
  choices: Choices;
  save(choices: Choices): void;
}

export class Settings {
  private dialog = byId<HTMLDialogElement>("settings");
  private system = byId<HTMLTextAreaElement>("setting-system");
  private temperature = byId<HTMLInputElement>("setting-temperature");
  private length = byId<HTMLInputElement>("setting-max-tokens");
  private sampling = new SamplingForm();
  private own_temperature: number | undefined;
  private thinking = byId<HTMLSelectElement>("setting-thinking");
  private theme = byId<HTMLSelectElement>("setting-theme");
  private presets: Presets;
  private save: Subject["save"] = () => undefined;

  /** `model`: the one that is chosen now. */
  constructor(
    private storageFull: () => void,
    private model: () => Model | undefined,
    private subject: () => Promise<Subject>,
  ) {
    this.presets = new Presets(
      () => (this.length.form?.reportValidity() ? this.read() : undefined),
      (choices) => this.fill(choices),
      storageFull,
    );
    byId("open-settings").onclick = () => void this.open();
    byId("settings-reset").onclick = () => this.fill(DEFAULTS);
    this.temperature.oninput = () => this.showTemperature(Number(this.temperature.value));
    this.theme.onchange = () => this.setTheme(this.theme.value);
    this.dialog.addEventListener("close", () => {
      if (this.dialog.returnValue === "save") this.save(this.read());
    });
    byId("toggle-theme").onclick = () => this.setTheme(isDark() ? "light" : "dark");
  }

  private async open(): Promise<void> {
    const { scope, choices, save } = await this.subject();
    if (this.dialog.open) return; // a second click, while the conversation was read
    this.save = save;
    setText(byId("settings-scope"), scope);
    this.fill(choices);
    this.presets.draw();
    byId("thinking-choice").hidden = !hasThinkingSwitch(this.model());
    this.theme.value = document.documentElement.dataset.theme ?? "system";
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }

  private fill({ system, sampling, thinking }: Choices): void {
    this.system.value = system;
    this.length.value = String(sampling.max_new_tokens ?? DEFAULTS.sampling.max_new_tokens);
    this.sampling.fill(sampling);
    this.thinking.value = [...THINKING].find(([, value]) => value === thinking)?.[0] ?? "own";
    this.showTemperature(sampling.temperature);
  }

  private read(): Choices {
    return {
      system: this.system.value,
      sampling: {
        ...this.sampling.read(),
        max_new_tokens: this.length.valueAsNumber,
        ...(this.own_temperature !== undefined && { temperature: this.own_temperature }),
      },
      thinking: THINKING.get(this.thinking.value) ?? null,
    };
  }

  private showTemperature(own: number | undefined): void {
    const value = own ?? this.model()?.sampling?.temperature ?? USUAL_TEMPERATURE;
    this.own_temperature = own;
    this.temperature.value = String(value);
    const number = value === 0 ? "0 (always the likeliest word)" : value.toFixed(1);
    setText(byId("temperature-value"), own === undefined ? `${number}, this model's default` : number);
  }

  private setTheme(theme: string): void {
    if (!chooseTheme(theme)) this.storageFull();
  }
}
