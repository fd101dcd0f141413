/** The form that orders a fine-tuning. The server judges what was chosen; what it refuses is said at its field. */

import { byId, h, setText } from "../shared/dom";
import { newId } from "../shared/ids";
import { ApiError, api } from "./api";
import { persist } from "./persist";
import type { Choices, Preset, TrainingOrder } from "./protocol";
import { scientific } from "./training_words";
import { bytes } from "./words";

export const NUMBERS = ["epochs", "learning_rate", "seq_len", "max_steps", "eval_fraction"] as const;
const FIELDS = ["preset", "data", "name", "model", "on", "out", "spot", ...NUMBERS];

export class TrainForm {
  private choices: Choices | undefined;
  private ordered: { asked: string; key: string } | undefined;
  private busy = false;

  constructor() {
    byId("train-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit();
    });
    this.select("preset").onchange = () => this.usePreset();
    this.select("on").onchange = () => this.showPlace();
    for (const field of FIELDS) this.field(field).addEventListener("input", () => this.problem(field, ""));
    this.showPlace();
  }

  /** Throws an ApiError when nobody answers. `data`: the cleaning to choose. */
  async load(data = ""): Promise<void> {
    const choices = await api.choices();
    const first = this.choices === undefined;
    this.choices = choices;
    if (first) {
      this.select("preset").replaceChildren(
        ...choices.presets.map(({ preset }) => h("option", { value: preset }, preset)),
      );
      this.select("preset").value =
        (choices.presets.find(({ model }) => choices.models.includes(model)) ?? choices.presets[0])?.preset ?? "";
      this.usePreset();
    }
    this.showData(data || this.select("data").value);
  }

  get loaded(): boolean {
    return this.choices !== undefined;
  }

  private usePreset(): void {
    const preset = this.preset;
    if (!preset) return;
    this.field("name").value = preset.name;
    for (const name of NUMBERS) this.field(name).value = numberText(preset[name]);
    this.showModels(preset);
    for (const field of FIELDS) this.problem(field, "");
  }

  private showModels({ model }: Preset): void {
    const names = [model, ...(this.choices?.models ?? []).filter((name) => name !== model)];
    this.select("model").replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  }

  private showData(wanted: string): void {
    const data = this.choices?.data ?? [];
    const select = this.select("data");
    select.replaceChildren(
      ...data.map(({ id, name, bytes: size }) => h("option", { value: id }, `${name} (${bytes(size)})`)),
    );
    select.disabled = data.length === 0;
    if (data.length === 0) select.append(h("option", { value: "" }, "No finished cleaning yet"));
    byId("train-no-data").hidden = data.length > 0;
    select.value = data.some(({ id }) => id === wanted) ? wanted : (data[0]?.id ?? "");
  }

  private showPlace(): void {
    byId("train-sky").hidden = this.select("on").value !== "sky";
  }

  private async submit(): Promise<void> {
    if (this.busy || !this.choices) return;
    for (const field of ["", ...FIELDS]) this.problem(field, "");
    this.showBusy(true);
    try {
      const { job } = await persist(() => api.train(this.order()), {
        signal: new AbortController().signal,
        pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
        trouble: (text) => this.problem("", text && `${text} Trying again…`),
      });
      location.assign(`/jobs/${job.id}`);
      return;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.refused(error);
    } finally {
      this.showBusy(false);
    }
  }

  /** With the same choices it is the same order: if its answer was lost, no second job is made. */
  private order(): TrainingOrder {
    const of = (field: string) => this.field(field).value;
    const chosen = {
      preset: of("preset"),
      data: of("data"),
      name: of("name"),
      model: of("model"),
      on: of("on"),
      out: of("out"),
      spot: byId<HTMLInputElement>("train-spot").checked,
      numbers: Object.fromEntries(NUMBERS.map((name) => [name, of(name)])),
    };
    const asked = JSON.stringify(chosen);
    if (this.ordered?.asked !== asked) this.ordered = { asked, key: newId() };
    return { key: this.ordered.key, ...chosen };
  }

  private refused(error: ApiError): void {
    this.ordered = undefined;
    const field = FIELDS.find((name) => name === error.field) ?? "";
    this.problem(field, error.message);
    if (!field) return;
    const details = this.field(field).closest("details");
    if (details) details.open = true;
    this.field(field).focus();
  }

  /** `field` empty: of the form as a whole. */
  private problem(field: string, text: string): void {
    setText(byId(field ? `problem-${field}` : "train-problem"), text);
    if (!field) return;
    if (text) this.field(field).setAttribute("aria-invalid", "true");
    else this.field(field).removeAttribute("aria-invalid");
  }

  private showBusy(busy: boolean): void {
    this.busy = busy;
    byId<HTMLButtonElement>("train-submit").disabled = busy;
  }

  private get preset(): Preset | undefined {
    return this.choices?.presets.find(({ preset }) => preset === this.select("preset").value);
  }

  private field(name: string): HTMLInputElement | HTMLSelectElement {
    return byId<HTMLInputElement>(`train-${name}`);
  }

  private select(name: string): HTMLSelectElement {
    return byId<HTMLSelectElement>(`train-${name}`);
  }
}

export function numberText(value: number): string {
  return value !== 0 && Math.abs(value) < 1e-3 ? scientific(value) : String(value);
}
