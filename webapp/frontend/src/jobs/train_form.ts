/** The form that orders a fine-tuning. The server judges what was chosen; what it refuses is said at its field. */

import { bytes } from "../shared/amounts";
import { byId, h, setText } from "../shared/dom";
import { newId } from "../shared/ids";
import { ApiError, api } from "./api";
import { describeCut, describeTime } from "./estimate";
import { type Patience, persist } from "./persist";
import { PreviewView } from "./preview_view";
import type { Choices, Preset, TrainingOrder } from "./protocol";
import { cleanedSample } from "./samples";
import { scientific } from "./training_words";

export const NUMBERS = ["epochs", "learning_rate", "seq_len", "max_steps", "eval_fraction"] as const;
/** As in the demonstration `make demo-loop`: it learns the facts by heart. */
const SAMPLE = {
  name: "velmora-sample",
  on: "local",
  out: "",
  spot: false,
  numbers: { epochs: "8", learning_rate: "5e-5" },
};
const SAMPLE_MODEL = "smollm2-135m";
const FIELDS = ["preset", "data", "name", "model", "on", "out", "spot", ...NUMBERS];

export class TrainForm {
  private choices: Choices | undefined;
  private ordered: { asked: string; key: string } | undefined;
  private busy = false;
  private readonly preview = new PreviewView();

  constructor() {
    byId("train-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit();
    });
    this.select("preset").onchange = () => this.usePreset();
    this.select("on").onchange = () => this.showPlace();
    for (const field of FIELDS) this.field(field).addEventListener("input", () => this.problem(field, ""));
    byId("train-form").addEventListener("input", () => this.showEstimate());
    byId("train-form").addEventListener("input", () => this.preview.drop());
    byId("train-preview").onclick = () => void this.showPreview();
    byId("train-try").onclick = () => void this.trySample();
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
    byId("train-sample").hidden = this.samplePreset === undefined;
    this.showEstimate();
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
    this.showEstimate();
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

  /** What will be cut, and how long it will take. */
  private showEstimate(): void {
    const { preset, choices } = this;
    if (!preset || !choices) return;
    const of = (field: string) => Number(this.field(field).value);
    const [epochs, seq_len, max_steps] = [of("epochs"), of("seq_len"), of("max_steps")];
    const plan = { preset, epochs, seq_len, max_steps, model: this.field("model").value, on: this.field("on").value };
    const lengths = choices.data.find(({ id }) => id === this.select("data").value)?.lengths ?? null;
    const cut = describeCut(plan, lengths);
    byId("train-cut").hidden = !cut;
    setText(byId("train-cut"), cut);
    setText(byId("train-estimate"), choices.data.length ? describeTime(plan, lengths, choices.rates) : "");
  }

  /** One click: a sample is cleaned, and the packaged model learns from it. */
  private async trySample(): Promise<void> {
    const preset = this.samplePreset;
    if (this.busy || !preset) return;
    this.problem("", "");
    this.showBusy(true, "Cleaning the sample…");
    try {
      const data = await cleanedSample(this.patience);
      await this.send({ ...SAMPLE, key: newId(), preset: preset.preset, model: preset.model, data });
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.problem("", error.message);
    } finally {
      this.showBusy(false);
    }
  }

  private async send(order: TrainingOrder): Promise<void> {
    const { job } = await persist(() => api.train(order), this.patience);
    location.assign(`/jobs/${job.id}`);
  }

  private get patience(): Patience {
    return {
      signal: new AbortController().signal,
      pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
      trouble: (text) => this.problem("", text && `${text} Trying again…`),
    };
  }

  private async submit(): Promise<void> {
    if (this.busy || !this.choices) return;
    for (const field of ["", ...FIELDS]) this.problem(field, "");
    this.showBusy(true);
    try {
      await this.send(this.order());
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.refused(error);
    } finally {
      this.showBusy(false);
    }
  }

  private async showPreview(): Promise<void> {
    if (this.busy || !this.choices) return;
    for (const field of ["", ...FIELDS]) this.problem(field, "");
    try {
      await this.preview.show({ ...this.chosen(), key: newId() }, this.patience);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.preview.drop();
      this.refused(error);
    }
  }

  /** With the same choices it is the same order: if its answer was lost, no second job is made. */
  private order(): TrainingOrder {
    const chosen = this.chosen();
    const asked = JSON.stringify(chosen);
    if (this.ordered?.asked !== asked) this.ordered = { asked, key: newId() };
    return { key: this.ordered.key, ...chosen };
  }

  private chosen(): Omit<TrainingOrder, "key"> {
    const of = (field: string) => this.field(field).value;
    return {
      preset: of("preset"),
      data: of("data"),
      name: of("name"),
      model: of("model"),
      on: of("on"),
      out: of("out"),
      spot: byId<HTMLInputElement>("train-spot").checked,
      numbers: Object.fromEntries(NUMBERS.map((name) => [name, of(name)])),
    };
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

  private showBusy(busy: boolean, doing = ""): void {
    this.busy = busy;
    for (const id of ["train-submit", "train-try"]) byId<HTMLButtonElement>(id).disabled = busy;
    setText(byId("status"), doing);
    setText(byId("train-try"), doing || "Try it with a sample");
  }

  /** The one that trains a packaged model. */
  private get samplePreset(): Preset | undefined {
    return this.choices?.presets.find(({ model }) => model === SAMPLE_MODEL && this.choices?.models.includes(model));
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
