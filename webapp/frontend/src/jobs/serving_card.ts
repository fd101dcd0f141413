/** The trained model: asking for it to be served, whether a worker has it, the way to chat with it. */

import { count } from "../shared/amounts";
import { byId, setText } from "../shared/dom";
import { api } from "./api";
import type { Job, Serving, Training } from "./protocol";

const REGISTERED_WITHIN_S = 300;

export class ServingCard {
  private button = byId<HTMLButtonElement>("serve");
  private stop = byId<HTMLButtonElement>("stop-serving");
  private link = byId<HTMLAnchorElement>("chat-with");

  constructor(id: string, changed: () => void, away: (error: unknown) => void) {
    const ask = async (wanted: boolean) => {
      this.button.disabled = this.stop.disabled = true;
      try {
        this.showServing((await api.serve(id, wanted)).serving);
        changed();
      } catch (error) {
        away(error);
      }
      this.button.disabled = this.stop.disabled = false;
      (wanted ? this.stop : this.button).focus();
    };
    this.button.onclick = () => void ask(true);
    this.stop.onclick = () => void ask(false);
  }

  /** True while it changes by itself. */
  show(job: Job, { serving, model, out }: Training, now_s: number): boolean {
    byId("serving-card").hidden = job.state !== "finished";
    if (job.state !== "finished") return false;
    if (serving) {
      this.showServing(serving);
      return serving.wanted && serving.workers === 0;
    }
    const soon = now_s - job.ended_s < REGISTERED_WITHIN_S;
    this.showNothing(soon ? "The model is being registered." : `The model is in ${model || `${out}/model`}.`, soon);
    return soon;
  }

  private showNothing(text: string, waits: boolean): void {
    setText(byId("serving-text"), text);
    byId("serving-pulse").hidden = !waits;
    this.button.hidden = this.stop.hidden = this.link.hidden = true;
    byId("serving-trouble").hidden = true;
  }

  private showServing(serving: Serving): void {
    const served = serving.workers > 0;
    setText(byId("serving-text"), servingText(serving));
    byId("serving-pulse").hidden = served || !serving.wanted;
    byId("serving-trouble").hidden = !serving.trouble || served;
    setText(byId("serving-trouble"), serving.trouble);
    this.button.hidden = serving.wanted || served;
    this.stop.hidden = !serving.wanted;
    this.link.hidden = !served;
    this.link.href = `/?model=${encodeURIComponent(serving.name)}`;
    setText(byId("chat-with-text"), `Chat with ${serving.name}`);
  }
}

export function servingText(serving: Serving): string {
  const { kind, lineage, adapter } = serving;
  const base = lineage[lineage.length - 1];
  if (kind === "adapter" && base) return `${stateText(serving)} It is an adapter, served on ${base}.`;
  return adapter ? `${stateText(serving)} Its adapter alone is ${adapter}.` : stateText(serving);
}

function stateText({ name, wanted, loading, workers }: Serving): string {
  if (workers > 0) return `${name} is served by ${count(workers, "worker")}.`;
  if (!wanted) return `${name} is ready. Serve the model, and a standby worker loads it.`;
  if (loading) return `A worker is loading ${name}.`;
  return `${name} waits for a standby worker; chatserver worker --standby starts one.`;
}
