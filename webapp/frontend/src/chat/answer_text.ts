/**
 * The DOM of one answer's text: markdown blocks, sanitised, each touched only when its HTML changed. Nothing else
 * writes HTML into the page; formulas are drawn into it afterwards, as elements.
 */

import DOMPurify, { type Config } from "dompurify";
import { copyButton, h } from "../shared/dom";
import { drawFormulas, isDrawn } from "./formula_view";
import { BlockStream } from "./markdown";
import { patchChildren } from "./patch";

const ALLOWED: Config = {
  ALLOWED_TAGS: [
    "p",
    "br",
    "hr",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "strong",
    "em",
    "del",
    "code",
    "pre",
    "span",
    "blockquote",
    "ul",
    "ol",
    "li",
    "a",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
  ],
  ALLOWED_ATTR: ["href", "target", "rel", "class", "align", "start"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  // The pattern above would be asked about these too.
  ADD_URI_SAFE_ATTR: ["align", "start", "target", "rel"],
};

export class AnswerText {
  readonly element = h("div", { class: "prose" });
  private stream = new BlockStream();
  private blocks: { html: string; element: HTMLElement }[] = [];

  update(text: string, final: boolean): void {
    const htmls = this.stream.update(text, final);
    htmls.forEach((html, i) => {
      const block = this.blocks[i];
      if (block?.html === html) return;
      const fresh = buildBlock(html);
      const element = block?.element ?? fresh;
      if (block) patchChildren(element, fresh, isDrawn);
      else this.element.append(element);
      drawFormulas(element);
      this.blocks[i] = { html, element };
    });
    for (const { element } of this.blocks.splice(htmls.length)) element.remove();
  }
}

function buildBlock(html: string): HTMLElement {
  const block = h("div", { class: "block" });
  block.append(DOMPurify.sanitize(html, { ...ALLOWED, RETURN_DOM_FRAGMENT: true }));
  for (const link of block.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const pre of block.querySelectorAll("pre")) frameCode(pre);
  for (const table of block.querySelectorAll("table")) scrollable(table, "Table");
  return block;
}

function frameCode(pre: HTMLPreElement): void {
  const language = pre.firstElementChild?.className.replace(/^language-/, "") || "text";
  const frame = h(
    "div",
    { class: "code" },
    h(
      "div",
      { class: "code-head" },
      h("span", { class: "code-language" }, language),
      copyButton(`Copy ${language} code`, () => pre.textContent ?? ""),
    ),
  );
  pre.tabIndex = 0;
  pre.setAttribute("role", "group"); // a region would need a name of its own
  pre.setAttribute("aria-label", `${language} code`);
  pre.replaceWith(frame);
  frame.append(pre);
}

function scrollable(table: HTMLTableElement, label: string): void {
  const frame = h("div", { class: "table", tabindex: "0", role: "group", "aria-label": label });
  table.replaceWith(frame);
  frame.append(table);
}
