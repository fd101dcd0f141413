/** Shows what the data of a fine-tuning would become: counts, what is refused, and examples with what is learnt marked. */

import { byId, h, setText } from "../shared/dom";
import { api } from "./api";
import { type Patience, persist } from "./persist";
import type { Preview, TrainingOrder } from "./protocol";

const LOOK_EVERY_MS = 1_000;
const ALONE_AFTER_MS = 10_000;
const LONGEST_MS = 300_000;

/** What is said until the preview has ended. */
export function waitingWords(state: Preview["state"], waited_ms: number): string {
  if (state === "waiting" && waited_ms > ALONE_AFTER_MS)
    return "Nobody has begun to read the data yet. Does “chatserver pipelines trainings” run?";
  return "Reading the data…";
}

export class PreviewView {
  private asked = 0;

  /** Orders a preview and shows it. A later order replaces an earlier one. Throws an ApiError. */
  async show(order: TrainingOrder, patience: Patience): Promise<void> {
    const asked = ++this.asked;
    this.clear();
    let { preview } = await persist(() => api.preview(order), patience);
    const began = Date.now();
    while (preview.state !== "ended" && asked === this.asked && Date.now() - began < LONGEST_MS) {
      this.state(waitingWords(preview.state, Date.now() - began));
      await patience.pause(LOOK_EVERY_MS);
      ({ preview } = await persist(() => api.previewed(preview.id), patience));
    }
    if (asked === this.asked) this.draw(preview);
  }

  /** The form has changed: what is shown is no longer of its order. */
  drop(): void {
    this.asked++;
    this.clear();
    byId("train-preview-card").hidden = true;
  }

  private clear(): void {
    setText(byId("train-preview-problem"), "");
    byId("train-preview-lines").replaceChildren();
    byId("train-preview-examples").replaceChildren();
    byId("train-preview-card").hidden = false;
    this.state("Reading the data…");
  }

  private state(text: string): void {
    setText(byId("train-preview-state"), text);
  }

  private draw({ state, lines, examples, problem }: Preview): void {
    this.state(state === "ended" ? "" : "Nobody has read the data; the preview was given up.");
    setText(byId("train-preview-problem"), problem);
    byId("train-preview-lines").replaceChildren(...lines.map((line) => h("li", {}, line)));
    byId("train-preview-examples").replaceChildren(...examples.map(example));
    byId("train-preview-key").hidden = examples.length === 0;
  }
}

/** One conversation. Texts become text nodes: nothing in the data is markup. */
function example({ where, stretches }: Preview["examples"][number]): HTMLElement {
  const parts = stretches.map(([text, learnt]) => (learnt ? h("mark", { class: "learnt" }, text) : text));
  return h(
    "figure",
    { class: "example", "data-testid": "preview-example" },
    h("figcaption", {}, where),
    h("pre", { tabindex: "0" }, ...parts),
  );
}
