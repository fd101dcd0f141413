/** One side's answer to one question: its text as it comes, what it waits for, and who it was once that is known. */

import { AnswerText } from "../chat/answer_text";
import { ReasoningView } from "../chat/reasoning_view";
import { h, setText } from "../shared/dom";
import type { Answer, Contestant, SideName } from "./protocol";
import type { Said } from "./streams";
import { describeEnd, describePhase, letterOf } from "./words";

export class SideView {
  private name = h("h3", { "data-testid": "side-name" });
  private badge = h("span", { class: "badge finished", hidden: true }, "Your vote");
  private state = h("p", { class: "quiet-text side-state", "data-testid": "side-state" });
  private reasoning = new ReasoningView((open) => {
    this.isReasoningOpen = open;
  });
  private text = new AnswerText();
  private isReasoningOpen = false;
  readonly element: HTMLElement;

  constructor(side: SideName) {
    setText(this.name, `Answer ${letterOf(side)}`);
    this.element = h(
      "div", // no section: several rounds would make landmarks of one name
      { class: "card side", role: "group", "data-testid": `side-${side}`, "aria-label": `Answer ${letterOf(side)}` },
      h("div", { class: "card-head" }, this.name, this.badge),
      this.reasoning.element,
      this.text.element,
      this.state,
    );
    this.reasoning.update("", "", false, false);
  }

  /** While it streams. */
  grow(said: Said): void {
    this.draw(said.reasoning, said.answer, false);
    setText(this.state, describePhase(said));
  }

  /** As the server has it. */
  show(answer: Answer): void {
    this.draw(answer.reasoning, answer.content, true);
    setText(this.state, describeEnd(answer));
    this.element.dataset.state = answer.state;
  }

  reveal(side: SideName, contestant: Contestant, chosen: boolean): void {
    setText(this.name, `${letterOf(side)}: ${contestant.name}`);
    this.badge.hidden = !chosen;
    this.element.classList.toggle("chosen", chosen);
  }

  private draw(reasoning: string, answer: string, final: boolean): void {
    this.reasoning.update(reasoning, answer || final ? "Thoughts" : "Thinking", this.isReasoningOpen, final);
    this.text.update(answer, final);
  }
}
