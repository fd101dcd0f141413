/** Small files that come with the server, for whoever has none at hand: to clean, and to learn from. */

import { newId } from "../shared/ids";
import { api } from "./api";
import { type Patience, persist } from "./persist";
import { sendFile } from "./upload";

export const TO_CLEAN = "sharegpt_html.json";
const TO_LEARN = { file: "velmora_html.json", name: "Sample: Velmora" };
const LOOK_EVERY_MS = 1_000;

/** The sample as if its user had chosen it. */
export async function sampleFile(name: string, patience: Patience): Promise<File> {
  return new File([await persist(() => api.sample(name), patience)], name, { lastModified: 0 });
}

/** Cleans the sample to learn from; the id of the finished job. Throws an Error where it does not finish. */
export async function cleanedSample(patience: Patience): Promise<string> {
  const file = await sampleFile(TO_LEARN.file, patience);
  const { recipes } = await persist(() => api.recipes(), patience);
  const recipe = recipes.find(({ name }) => name.startsWith("vicuna")) ?? recipes[0];
  if (!recipe) throw new Error("the server has no recipe");
  const upload = await sendFile(file, { ...patience, server: api, memory: forgetful, tell: () => undefined });
  const order = { key: newId(), recipe: recipe.text, recipe_name: recipe.name, uploads: [upload], name: TO_LEARN.name };
  const { job } = await persist(() => api.submit(order), patience);
  return finished(job.id, patience);
}

async function finished(id: string, patience: Patience): Promise<string> {
  for (;;) {
    const { job } = await persist(() => api.job(id, "0", -1), patience);
    if (job.state === "finished") return id;
    if (job.state === "failed" || job.state === "cancelled")
      throw new Error(job.error || `the cleaning was ${job.state}`);
    await patience.pause(LOOK_EVERY_MS);
  }
}

/** A file of some kilobytes is sent anew. */
const forgetful = { getItem: () => null, setItem: () => undefined, removeItem: () => undefined };
