/**
 * Draws the formulas of an answer's block with KaTeX, in the DOM: its `style` attributes would not pass the page's
 * policy as HTML. `trust: false` draws no link, picture or class of the model's choice.
 */

import type Katex from "katex";
import { h } from "../shared/dom";
import { definesMacros, isDisplayed } from "./formulas";

const MAX_MACROS = 1_000; // expanded in one formula
const MAX_EM = 20;
const TO_DRAW = ".formula:not(.open, [data-source])";

let katex: typeof Katex | undefined;
let loading: Promise<void> | undefined;

/** Draws each formula in `block`, whose source stands in an element of the class `formula`. */
export function drawFormulas(block: HTMLElement): void {
  for (const place of block.querySelectorAll<HTMLElement>(TO_DRAW)) {
    if (katex) draw(katex, place);
    else void load().then(() => katex && place.isConnected && place.matches(TO_DRAW) && draw(katex, place));
  }
}

/** Whether `old` is the drawing of the formula whose source stands in `fresh`. */
export function isDrawn(old: Element, fresh: Element): boolean {
  return (
    old instanceof HTMLElement && old.dataset.source === fresh.textContent && fresh.getAttribute("class") === "formula"
  );
}

/** With the first formula. Formulas stay sources where it does not come. */
function load(): Promise<void> {
  loading ??= import("katex").then(
    (loaded) => {
      katex = loaded.default;
    },
    (error) => console.warn("formulas are shown as their source:", error),
  );
  return loading;
}

/** What KaTeX cannot read stays as its source. */
function draw(katex: typeof Katex, place: HTMLElement): void {
  const source = place.textContent ?? "";
  const displayMode = isDisplayed(source);
  place.dataset.source = source;
  const width = displayMode || source.startsWith("\\(") ? 2 : 1;
  try {
    if (definesMacros(source)) throw new Error("a formula defines no macros");
    katex.render(source.slice(width, -width), place, {
      displayMode,
      trust: false,
      strict: "ignore",
      maxSize: MAX_EM,
      maxExpand: MAX_MACROS,
      throwOnError: true,
    });
  } catch {
    place.textContent = source;
    place.classList.add("broken");
    return;
  }
  if (displayMode) scrollable(place);
}

function scrollable(place: HTMLElement): void {
  place.classList.add("display");
  place.tabIndex = 0;
  place.setAttribute("role", "group");
  place.setAttribute("aria-label", "Formula");
}

/** A copied selection holds the sources of its formulas. */
export function copySources(log: HTMLElement): void {
  log.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (!selection || selection.isCollapsed || !event.clipboardData) return;
    const range = selection.getRangeAt(0);
    const whole = wholeFormulas(range);
    const copied = whole.cloneContents();
    const formulas = copied.querySelectorAll<HTMLElement>(".formula[data-source]");
    if (formulas.length === 0) return;
    for (const formula of formulas) formula.replaceWith(h("span", { class: "source" }, formula.dataset.source));
    event.clipboardData.setData("text/plain", textOf(copied));
    event.preventDefault();
  });
}

/** A selection that begins or ends inside a formula holds all of it. */
function wholeFormulas(range: Range): Range {
  const whole = range.cloneRange();
  const at = (node: Node) => (node instanceof Element ? node : node.parentElement)?.closest(".formula[data-source]");
  const first = at(range.startContainer);
  const last = at(range.endContainer);
  if (first) whole.setStartBefore(first);
  if (last) whole.setEndAfter(last);
  return whole;
}

/** The text as it looks: lines and paragraphs apart. */
function textOf(fragment: DocumentFragment): string {
  const shown = document.createElement("div");
  shown.className = "copied prose";
  shown.append(fragment);
  document.body.append(shown);
  // biome-ignore lint/performance/useDomNodeTextContent: it knows no lines
  const text = shown.innerText;
  shown.remove();
  return text.trim();
}
