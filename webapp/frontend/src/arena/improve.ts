/** The administrator's card: a fine-tuning on what people preferred. The page has it only for who may order one. */

import { byId, h, setText } from "../shared/dom";
import { api } from "./api";

export async function showImprovement(report: (error: unknown) => void): Promise<void> {
  const form = document.getElementById("improve-form");
  if (!form) return;
  const { pairs, left_out, min_pairs, presets, models } = await api.improvement();
  const rest = left_out ? ` (${left_out})` : "";
  setText(byId("improve-pairs"), `People's judgements give ${pairs} pairs of answers${rest}.`);
  setText(byId("improve-few"), pairs < min_pairs ? `A fine-tuning needs ${min_pairs} pairs.` : "");
  byId<HTMLButtonElement>("improve").disabled = pairs < min_pairs;
  offer("improve-model", [["", "The preset's model"], ...models.map((each): [string, string] => [each, each])]);
  offer(
    "improve-preset",
    presets.map((each): [string, string] => [each, each]),
    "smollm2-135m",
  );
  form.onsubmit = (event) => {
    event.preventDefault();
    void order().catch(report);
  };
}

function offer(id: string, options: [string, string][], chosen = ""): void {
  const select = byId<HTMLSelectElement>(id);
  const before = select.value || chosen;
  select.replaceChildren(...options.map(([value, words]) => h("option", { value }, words)));
  if (options.some(([value]) => value === before)) select.value = before;
}

async function order(): Promise<void> {
  const value = (id: string) => byId<HTMLSelectElement>(id).value;
  const button = byId<HTMLButtonElement>("improve");
  button.disabled = true;
  try {
    const job = await api.improve(value("improve-preset"), value("improve-model"));
    location.assign(`/jobs/${encodeURIComponent(job)}`);
  } finally {
    button.disabled = false;
  }
}
