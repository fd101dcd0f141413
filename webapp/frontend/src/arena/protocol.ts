/** The arena's HTTP API as types (docs/protocol.md). Before the vote a battle names no model. */

export type Vote = "left" | "right" | "tie" | "both_bad";
export type SideName = "left" | "right";

export interface Answer {
  id: string;
  state: "unsent" | "open" | "finished" | "failed" | "cancelled";
  content: string;
  reasoning: string;
  code: string;
}

export interface Round {
  question: string;
  left: Answer;
  right: Answer;
}

export interface Contestant {
  name: string;
  model: string;
}

export interface Battle {
  id: string;
  vote: Vote | null;
  rounds: Round[];
  /** These three after the vote alone. */
  left?: Contestant;
  right?: Contestant;
  conversation_id?: string;
}

export interface WantedSide {
  model?: string;
  settings?: { sampling: { temperature: number } };
}

export interface Standing {
  name: string;
  rank: number;
  score: number;
  /** Null: the votes set no bound. */
  low: number | null;
  high: number | null;
  votes: number;
  wins: number;
  losses: number;
  ties: number;
  both_bad: number;
  group: number;
  few_votes: boolean;
}

export interface Leaderboard {
  standings: Standing[];
  votes: number;
  groups: number;
  unranked: number;
}

export interface Improvement {
  pairs: number;
  left_out: string;
  min_pairs: number;
  presets: string[];
  models: string[];
}
