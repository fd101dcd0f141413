/** What the arena asks the server. */

import { askJson } from "../shared/http";
import type { Battle, Improvement, Leaderboard, Vote, WantedSide } from "./protocol";

const ROOT = "/api/arena";

function path(id: string): string {
  return `${ROOT}/battles/${encodeURIComponent(id)}`;
}

async function battleOf(answer: Promise<{ battle: Battle }>): Promise<Battle> {
  return (await answer).battle;
}

export const api = {
  models: async () => (await askJson<{ models: string[] }>("GET", `${ROOT}/models`)).models,
  begin: (id: string, question: string, sides: WantedSide[]) =>
    battleOf(askJson("POST", `${ROOT}/battles`, { id, question, sides })),
  battle: (id: string) => battleOf(askJson("GET", path(id))),
  ask: (id: string, number: number, question: string) =>
    battleOf(askJson("POST", `${path(id)}/questions`, { number, question })),
  vote: (id: string, vote: Vote) => battleOf(askJson("POST", `${path(id)}/vote`, { vote })),
  leaderboard: () => askJson<Leaderboard>("GET", `${ROOT}/leaderboard`),
  improvement: () => askJson<Improvement>("GET", `${ROOT}/improvement`),
  improve: async (preset: string, model: string) =>
    (await askJson<{ job: string }>("POST", `${ROOT}/improvement`, { preset, model })).job,
};
