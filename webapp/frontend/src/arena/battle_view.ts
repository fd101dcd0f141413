/** One battle on the page: its questions with both answers, the votes, and who wrote what after the vote. */

import { byId, h, setText } from "../shared/dom";
import type { Answer, Battle, Round, SideName, Vote } from "./protocol";
import { SideView } from "./side_view";
import type { Said } from "./streams";
import { describeBattle, VOTES } from "./words";

const SIDES: SideName[] = ["left", "right"];

export class BattleView {
  private sides = new Map<string, SideView>();
  private buttons = new Map<Vote, HTMLButtonElement>();
  private shown = "";

  constructor(vote: (vote: Vote) => void) {
    for (const [name, words] of Object.entries(VOTES) as [Vote, string][]) {
      const button = h("button", { type: "button", class: "button", "data-testid": `vote-${name}` }, words);
      button.onclick = () => vote(name);
      this.buttons.set(name, button);
    }
    byId("votes").replaceChildren(...this.buttons.values());
  }

  clear(): void {
    this.sides.clear();
    this.shown = "";
    byId("rounds").replaceChildren();
    byId("verdict").hidden = true;
  }

  show(battle: Battle): void {
    if (this.shown !== battle.id) this.clear();
    this.shown = battle.id;
    for (const round of battle.rounds) this.showRound(round);
    if (battle.vote) this.reveal(battle);
    const ready = isReady(battle);
    byId("verdict").hidden = !ready && !battle.vote;
    byId("votes").hidden = battle.vote !== null;
    setText(byId("verdict-words"), describeBattle(battle, ready));
    const link = byId<HTMLAnchorElement>("to-conversation");
    link.hidden = !battle.conversation_id;
    if (battle.conversation_id) link.href = `/#/c/${encodeURIComponent(battle.conversation_id)}`;
  }

  grow(id: string, said: Said): void {
    this.sides.get(id)?.grow(said);
  }

  lock(locked: boolean): void {
    for (const button of this.buttons.values()) button.disabled = locked;
  }

  private showRound(round: Round): void {
    if (!this.sides.has(round.left.id)) this.addRound(round);
    for (const side of SIDES) {
      const answer = round[side];
      if (!isOpen(answer)) this.sides.get(answer.id)?.show(answer);
    }
  }

  private addRound(round: Round): void {
    const views = SIDES.map((side) => {
      const view = new SideView(side);
      view.grow({ reasoning: "", answer: "", phase: "queued" });
      this.sides.set(round[side].id, view);
      return view.element;
    });
    byId("rounds").append(
      h(
        "article",
        { class: "round-of-two", "data-testid": "round" },
        h("h2", { class: "question" }, round.question),
        h("div", { class: "two" }, ...views),
      ),
    );
  }

  private reveal(battle: Battle): void {
    for (const round of battle.rounds)
      for (const side of SIDES) {
        const contestant = battle[side];
        if (contestant) this.sides.get(round[side].id)?.reveal(side, contestant, battle.vote === side);
      }
  }
}

export function isOpen({ state }: Answer): boolean {
  return state === "open" || state === "unsent";
}

/** Both answers to the last question are whole, so people can vote or ask on. */
export function isReady({ rounds }: Battle): boolean {
  const last = rounds.at(-1);
  return last !== undefined && SIDES.every((side) => last[side].state === "finished");
}

/** Both have ended, perhaps with a failure. */
export function hasEnded({ rounds }: Battle): boolean {
  const last = rounds.at(-1);
  return last !== undefined && SIDES.every((side) => !isOpen(last[side]));
}
