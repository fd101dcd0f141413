/** What the arena says. Pure. */

import type { Answer, Battle, Leaderboard, SideName, Standing, Vote } from "./protocol";
import type { Said } from "./streams";

export const VOTES: Record<Vote, string> = {
  left: "A is better",
  tie: "Both are as good",
  both_bad: "Both are bad",
  right: "B is better",
};

export function letterOf(side: SideName): string {
  return side === "left" ? "A" : "B";
}

export function describePhase({ phase, answer, reasoning }: Said): string {
  if (phase === "interrupted") return "Interrupted; continues by itself";
  if (phase !== "running") return "Waiting in the queue";
  if (answer) return "Writing";
  return reasoning ? "Thinking" : "Reading the question";
}

export function describeEnd({ state, code, content }: Answer): string {
  if (state === "failed") return "This answer failed. Begin a new battle.";
  if (state === "cancelled") return "This answer was stopped. Begin a new battle.";
  if (state === "finished" && code === "length") return "It reached its limit of tokens.";
  return state === "finished" && !content ? "It has no text." : "";
}

/** What a screen reader hears, and what stands over the votes. */
export function describeBattle(battle: Battle, isReady: boolean): string {
  if (battle.vote) return `You voted: ${VOTES[battle.vote]}. A was ${battle.left?.name}, B was ${battle.right?.name}.`;
  return isReady ? "Which answer is better? You see who wrote them after your vote." : "";
}

export function describeInterval({ low, high }: Pick<Standing, "low" | "high">): string {
  const bound = (value: number | null) => (value === null ? "open" : String(Math.round(value)));
  return `${bound(low)} to ${bound(high)}`;
}

export function describeBoard({ votes, groups, unranked, standings }: Leaderboard): string[] {
  if (!votes) return ["Nobody has voted yet. Ask two models one question, and vote."];
  const said = [
    `${votes} ${votes === 1 ? "vote" : "votes"}. Scores are Bradley-Terry's: 400 points more win ten games of eleven; 1000 is average. Ties count as half a win, and so do two bad answers.`,
    "The interval holds 95 % of the scores that the same number of votes, drawn again from these, would give. A rank is one more than the number of models whose whole interval lies above.",
  ];
  if (standings.some(({ low, high }) => low === null || high === null))
    said.push("An interval is open where a model has won, or lost, every time: the votes do not say how far it goes.");
  if (standings.some(({ few_votes }) => few_votes)) said.push("With few votes a score says little.");
  if (groups > 1)
    said.push(`There are ${groups} groups of models that never met, so nothing tells which group is better.`);
  if (unranked)
    said.push(`The ${standings.length} contestants with the most votes have a row; ${unranked} more have none.`);
  return said;
}
