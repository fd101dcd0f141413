/** Over the message box: the questions that wait for the running answer. Each can be taken back. */

import { byId, h, icon } from "../shared/dom";
import { splitAttachments } from "./attachments";
import type { NextQuestion } from "./next_questions";

export class NextList {
  private element = byId("next");
  private drawn = "";

  constructor(private takeBack: (question: NextQuestion) => void) {}

  show(questions: NextQuestion[]): void {
    const key = JSON.stringify(questions);
    if (key === this.drawn) return;
    this.drawn = key;
    this.element.hidden = questions.length === 0;
    this.element.replaceChildren(...questions.map((question) => this.item(question)));
  }

  private item(question: NextQuestion): HTMLLIElement {
    const { typed, attachments } = splitAttachments(question.content);
    const label = "Take this question back";
    return h(
      "li",
      { "data-testid": "next-question" },
      h("span", { class: "quiet-text" }, "Next:"),
      h("span", { class: "title" }, typed || (attachments[0]?.name ?? "")),
      h(
        "button",
        {
          type: "button",
          class: "tool",
          title: label,
          "aria-label": label,
          "data-testid": "next-remove",
          onclick: () => this.takeBack(question),
        },
        icon("close"),
      ),
    );
  }
}
