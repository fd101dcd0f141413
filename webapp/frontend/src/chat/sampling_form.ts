/** The fields of the settings dialog for the options of sampling. An empty field leaves an option to the model. */

import { byId, h } from "../shared/dom";
import type { Sampling } from "./protocol";

type NumberName = Exclude<keyof Sampling, "stop" | "temperature" | "max_new_tokens">;

interface Field {
  name: NumberName;
  label: string;
  min: number;
  max: number;
  step: number | "any";
}

const FIELDS: Field[] = [
  { name: "top_p", label: "Top p", min: 0.01, max: 1, step: "any" },
  { name: "top_k", label: "Top k", min: 0, max: 1000, step: 1 },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: "any" },
  { name: "repetition_penalty", label: "Repetition penalty", min: 0.01, max: 10, step: "any" },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: "any" },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: "any" },
  { name: "seed", label: "Seed", min: 0, max: 2147483647, step: 1 },
];

export class SamplingForm {
  private inputs = new Map<NumberName, HTMLInputElement>();
  private stop = h("textarea", { id: "setting-stop", rows: "2", "data-testid": "setting-stop" });

  constructor() {
    const fields = FIELDS.map((field) => this.field(field));
    const stop = h("label", { class: "whole", for: "setting-stop" }, "Stop at these texts, one a line");
    byId("sampling-fields").append(...fields, stop, this.stop);
  }

  fill(sampling: Sampling): void {
    for (const [name, input] of this.inputs) input.value = sampling[name]?.toString() ?? "";
    this.stop.value = sampling.stop?.join("\n") ?? "";
  }

  /** What the fields say; the form has been checked. */
  read(): Sampling {
    const sampling: Sampling = {};
    for (const [name, input] of this.inputs) {
      if (input.value !== "") sampling[name] = input.valueAsNumber;
    }
    const stop = this.stop.value.split("\n").filter(Boolean);
    return stop.length > 0 ? { ...sampling, stop } : sampling;
  }

  private field({ name, label, min, max, step }: Field): HTMLLabelElement {
    const input = h("input", {
      type: "number",
      min: String(min),
      max: String(max),
      step: String(step),
      placeholder: "the model's own",
      // The browser tells what is wrong at the field, and can only if the field is shown.
      oninvalid: ({ currentTarget }: Event) => {
        (currentTarget as Element).closest("details")?.setAttribute("open", "");
      },
      "data-testid": `setting-${name}`,
    });
    this.inputs.set(name, input);
    return h("label", {}, label, input);
  }
}
