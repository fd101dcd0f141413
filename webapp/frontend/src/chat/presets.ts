/** Named sets of choices in the settings dialog: pick one, keep what the dialog shows under a name, forget one. */

import { byId, h } from "../shared/dom";
import { type Choices, loadPreferences, savePreferences } from "./preferences";

export class Presets {
  private select = byId<HTMLSelectElement>("preset");
  private name = byId<HTMLInputElement>("preset-name");
  private forgetButton = byId<HTMLButtonElement>("preset-forget");

  /** `shown`: what the dialog says now, undefined where it tells of a wrong value; `pick` fills it. */
  constructor(
    private shown: () => Choices | undefined,
    private pick: (choices: Choices) => void,
    private storageFull: () => void,
  ) {
    this.select.onchange = () => this.choose(this.select.value);
    byId("preset-keep").onclick = () => this.keep(this.name.value.trim());
    this.forgetButton.onclick = () => this.forget(this.select.value);
    this.name.onkeydown = (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault(); // it would save the settings
      this.keep(this.name.value.trim());
    };
  }

  draw(chosen = ""): void {
    const names = Object.keys(loadPreferences().presets).sort();
    const options = names.map((name) => h("option", { value: name, selected: name === chosen }, name));
    const none = names.length > 0 ? "Choose a preset" : "No presets yet";
    this.select.replaceChildren(h("option", { value: "" }, none), ...options);
    this.forgetButton.hidden = !chosen;
    this.name.value = chosen;
  }

  private choose(name: string): void {
    const choices = loadPreferences().presets[name];
    if (choices) this.pick(choices);
    this.draw(name);
  }

  private keep(name: string): void {
    if (!name) {
      this.name.focus();
      return;
    }
    const choices = this.shown();
    if (!choices) return;
    this.store({ ...loadPreferences().presets, [name]: choices });
    this.draw(name);
  }

  private forget(name: string): void {
    const { [name]: _, ...others } = loadPreferences().presets;
    this.store(others);
    this.draw();
    this.select.focus();
  }

  private store(presets: Record<string, Choices>): void {
    if (!savePreferences({ presets })) this.storageFull();
  }
}
