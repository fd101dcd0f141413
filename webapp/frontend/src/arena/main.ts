/**
 * The arena: one question to two models, side by side, a vote, the leaderboard. The battle stands in the address,
 * `#b=<id>`, so that a reload goes on with it; `#leaderboard` shows the scores.
 */

import { byId, h, setText } from "../shared/dom";
import { ApiError } from "../shared/http";
import { newId } from "../shared/ids";
import { chooseTheme, isDark } from "../shared/theme";
import { api } from "./api";
import { BattleView, hasEnded, isOpen, isReady } from "./battle_view";
import { showImprovement } from "./improve";
import { showLeaderboard } from "./leaderboard";
import type { Battle, Vote, WantedSide } from "./protocol";
import { Streams } from "./streams";

/** The archivist takes an ended answer to the database at once, or within a second. */
const LOOK_AGAIN_MS = 400;

class ArenaPage {
  private battle: Battle | undefined;
  private view = new BattleView((vote) => void this.vote(vote));
  private streams = new Streams(
    (id, said) => this.view.grow(id, said),
    () => void this.refresh(),
    (connected) => (byId("away").hidden = connected),
  );
  private looking: ReturnType<typeof setTimeout> | undefined;
  /** Of the battle that is being begun: the same id is sent again until the server has it. */
  private nextId = newId();

  start(): void {
    byId("toggle-theme").onclick = () => chooseTheme(isDark() ? "light" : "dark");
    byId("ask-form").onsubmit = (event) => {
      event.preventDefault();
      void this.ask();
    };
    byId<HTMLTextAreaElement>("question").onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      void this.ask();
    };
    window.addEventListener("hashchange", () => void this.follow());
    void this.loadModels();
    void this.follow();
  }

  // ── where we are ────────────────────────────────────────────────────────────────────────────────────────────────

  private async follow(): Promise<void> {
    const isBoard = location.hash === "#leaderboard";
    byId("arena").hidden = isBoard;
    byId("leaderboard").hidden = !isBoard;
    mark("tab-battle", !isBoard);
    mark("tab-board", isBoard);
    const id = /^#b=(.+)$/.exec(location.hash)?.[1];
    await this.attempt(async () => {
      if (isBoard) await Promise.all([showLeaderboard(), showImprovement((error) => this.report(error))]);
      else if (!id) this.fresh();
      else if (id !== this.battle?.id) this.show(await api.battle(decodeURIComponent(id)));
    });
  }

  private fresh(): void {
    clearTimeout(this.looking);
    this.streams.leave();
    this.battle = undefined;
    this.view.clear();
    this.drawForm();
  }

  private async loadModels(): Promise<void> {
    await this.attempt(async () => {
      const models = await api.models();
      for (const id of ["model-a", "model-b"])
        byId(id).replaceChildren(
          h("option", { value: "" }, "Any model"),
          ...models.map((each) => h("option", { value: each }, each)),
        );
      setText(
        byId("one-model"),
        models.length === 1 ? `Only ${models[0]} is served: it meets itself with two temperatures.` : "",
      );
    });
  }

  // ── asking and voting ───────────────────────────────────────────────────────────────────────────────────────────

  private async ask(): Promise<void> {
    const field = byId<HTMLTextAreaElement>("question");
    const question = field.value;
    if (!question.trim() || byId<HTMLButtonElement>("ask").disabled) return;
    byId<HTMLButtonElement>("ask").disabled = true;
    const worked = await this.attempt(async () => {
      const { battle } = this;
      if (battle) this.show(await api.ask(battle.id, battle.rounds.length, question));
      else {
        this.show(await api.begin(this.nextId, question, wanted()));
        this.nextId = newId();
      }
      field.value = "";
    });
    if (!worked) this.drawForm();
  }

  private async vote(vote: Vote): Promise<void> {
    const { battle } = this;
    if (!battle) return;
    this.view.lock(true);
    await this.attempt(async () => this.show(await api.vote(battle.id, vote)));
    this.view.lock(false);
  }

  // ── what is shown ───────────────────────────────────────────────────────────────────────────────────────────────

  private show(battle: Battle): void {
    if (this.battle?.id !== battle.id) {
      this.streams.leave();
      history.replaceState(null, "", `#b=${encodeURIComponent(battle.id)}`);
    }
    const wasReady = this.battle !== undefined && isReady(this.battle);
    this.battle = battle;
    this.view.show(battle);
    this.drawForm();
    for (const { left, right } of battle.rounds)
      for (const answer of [left, right]) if (isOpen(answer)) this.streams.follow(answer.id);
    if (!wasReady && isReady(battle) && !battle.vote) setText(byId("status"), "Both answers are ready. You can vote.");
    if (battle.vote) setText(byId("status"), byId("verdict-words").textContent ?? "");
  }

  private drawForm(): void {
    const { battle } = this;
    const isOver = battle?.vote !== undefined && battle.vote !== null;
    byId("ask-form").hidden = isOver || (battle !== undefined && hasEnded(battle) && !isReady(battle));
    byId("choices").hidden = battle !== undefined;
    byId("intro").hidden = battle !== undefined;
    setText(byId("ask-words"), battle ? "Ask both once more" : "Ask two models");
    byId<HTMLButtonElement>("ask").disabled = battle !== undefined && !isReady(battle);
  }

  /** An answer has ended: its row follows. */
  private async refresh(): Promise<void> {
    clearTimeout(this.looking);
    const { battle } = this;
    if (!battle) return;
    await this.attempt(async () => {
      const found = await api.battle(battle.id);
      if (this.battle?.id !== found.id) return;
      this.show(found);
      if (!hasEnded(found)) this.looking = setTimeout(() => void this.refresh(), LOOK_AGAIN_MS);
    });
  }

  /** Whether it worked; what did not is said on the page. */
  private async attempt(what: () => Promise<void>): Promise<boolean> {
    byId("refusal").hidden = true;
    try {
      await what();
      return true;
    } catch (error) {
      this.report(error);
      return false;
    }
  }

  private report(error: unknown): void {
    if (!(error instanceof ApiError)) throw error;
    const refusal = byId("refusal");
    setText(refusal, error.message);
    refusal.hidden = false;
  }
}

function wanted(): WantedSide[] {
  return ["a", "b"].map((letter) => {
    const side: WantedSide = {};
    const model = byId<HTMLSelectElement>(`model-${letter}`).value;
    const temperature = byId<HTMLInputElement>(`temperature-${letter}`).value;
    if (model) side.model = model;
    if (temperature) side.settings = { sampling: { temperature: Number(temperature) } };
    return side;
  });
}

function mark(id: string, isHere: boolean): void {
  if (isHere) byId(id).setAttribute("aria-current", "page");
  else byId(id).removeAttribute("aria-current");
}

new ArenaPage().start();
