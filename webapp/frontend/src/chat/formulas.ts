/**
 * Finds LaTeX in markdown, for `markdown.ts`: `\(…\)`, `\[…\]`, `$$…$$`, and `$…$` where it cannot be money. The source
 * of a formula is passed on untouched; `formula_view.ts` draws it. Pure.
 */

import type { MarkedExtension, Tokens } from "marked";
import { escapeHtml } from "./html";

/** KaTeX draws as much in a moment; what is longer stays text. */
export const MAX_FORMULA_CHARS = 4_000;

const CLOSERS: Record<string, string> = { "\\(": "\\)", "\\[": "\\]", $$: "$$" };
const DOLLARS = /^\$(?![\s$])((?:[^$\\\n`]|\\[^\n])+?)(?<!\s)\$(?![\p{L}\p{N}$])/u;
const LINE_START = /^ {0,3}(?=\\\[|\$\$)/;
const LATER_LINE_START = /\n {0,3}(?:\\\[|\$\$)/;

/** `streaming`: a formula that is not closed yet is one piece, so that its parts are never taken for markdown. */
export function formulas(streaming: boolean): MarkedExtension {
  return {
    extensions: [block(streaming), delimiter(), inline(streaming)], // the last is asked first
    hooks: { emStrongMask: withoutFormulas },
    tokenizer: {
      // A line of a formula that holds only `=` or `-` underlines no heading.
      lheading: (text: string) => (LATER_LINE_START.test(paragraphOf(text)) ? undefined : false),
    },
  };
}

/** On lines of its own: there it may hold blank lines, and lines that would begin a list or a heading. */
function block(streaming: boolean) {
  return {
    name: "formulaBlock",
    level: "block" as const,
    start(text: string) {
      const found = LATER_LINE_START.exec(paragraphOf(text));
      return found ? found.index + 1 : undefined;
    },
    tokenizer(text: string) {
      const indent = LINE_START.exec(text)?.[0];
      if (indent === undefined) return undefined;
      const rest = text.slice(indent.length);
      const source = closedAt(rest);
      const lineEnd = source && /^[ \t]*(?:\n+|$)/.exec(rest.slice(source.length))?.[0];
      if (source && lineEnd !== undefined) return { type: "formulaBlock", raw: indent + source + lineEnd, source };
      if (source || !streaming || !isOpenAt(rest)) return undefined;
      return { type: "formulaBlock", raw: text, source: rest, open: true };
    },
    renderer: ({ source, open }: Tokens.Generic) => `<p>${placeholder(source, open)}</p>`,
  };
}

function inline(streaming: boolean) {
  return {
    name: "formula",
    level: "inline" as const,
    start(text: string) {
      const index = text.indexOf("$"); // markdown's plain text ends before a backslash anyway
      return index < 0 ? undefined : index;
    },
    tokenizer(text: string, before: unknown) {
      const source = closedAt(text) ?? betweenDollars(text, before as Tokens.Generic[]);
      if (source) return { type: "formula", raw: source, source };
      return streaming && isOpenAt(text) ? { type: "formula", raw: text, source: text, open: true } : undefined;
    },
    renderer: ({ source, open }: Tokens.Generic) => placeholder(source, open),
  };
}

/** A lone one. Markdown would take its backslash. */
function delimiter() {
  return {
    name: "delimiter",
    level: "inline" as const,
    tokenizer(text: string) {
      const raw = /^\\[()[\]]/.exec(text)?.[0];
      return raw ? { type: "delimiter", raw } : undefined;
    },
    renderer: ({ raw }: Tokens.Generic) => escapeHtml(raw),
  };
}

/** The formula that begins the text, with its delimiters. */
function closedAt(text: string): string | undefined {
  const opener = text.slice(0, 2);
  const closer = CLOSERS[opener];
  if (!closer) return undefined;
  const end = text.slice(0, MAX_FORMULA_CHARS).indexOf(closer, 2);
  if (end < 0 || !text.slice(2, end).trim()) return undefined;
  if (opener === "\\[" && text[end + 2] === "(") return undefined; // `\[text\](address)` is an escaped link
  return text.slice(0, end + 2);
}

function isOpenAt(text: string): boolean {
  const closer = CLOSERS[text.slice(0, 2)];
  return (
    closer !== undefined && text.length <= MAX_FORMULA_CHARS && text.slice(2).trim() !== "" && !text.includes(closer, 2)
  );
}

function betweenDollars(text: string, before: Tokens.Generic[]): string | undefined {
  const found = text[0] === "$" ? DOLLARS.exec(text.slice(0, MAX_FORMULA_CHARS)) : null;
  if (!found || isMoney(found[1] ?? "")) return undefined;
  // `US$5`, `5$`: the sign belongs to what stands before it.
  return /[\p{L}\p{N}$]$/u.test(before.at(-1)?.raw ?? "") ? undefined : found[0];
}

/** Whether this may stand between two prices: `$5 for one and 6$`. */
function isMoney(tex: string): boolean {
  const words = tex.replace(/\\[a-zA-Z]+(?:\{[a-zA-Z ]*\})?/g, " ").match(/\p{L}+/gu) ?? [];
  const longest = Math.max(0, ...words.map((word) => word.length));
  if (/\\[a-zA-Z]|[\^_]/.test(tex)) return /^[\d.,]+\s/.test(tex) && longest > 2;
  if (!/^[\d.,]/.test(tex)) return longest > 2;
  return longest > 1 || /,\s/.test(tex) || !/^\d+$|[=+*/<>\p{L}]/u.test(tex);
}

export function isDisplayed(source: string): boolean {
  return source.startsWith("\\[") || source.startsWith("$$");
}

function placeholder(source: string, open?: boolean): string {
  return `<span class="formula${open ? " open" : ""}">${escapeHtml(source)}</span>`;
}

/** A paragraph in which the formulas are blotted out: no `*` in them begins or ends an emphasis. */
function withoutFormulas(text: string): string {
  let shown = "";
  for (let i = 0; i < text.length; ) {
    const source = /[\\$]/.test(text[i] as string)
      ? (closedAt(text.slice(i)) ?? betweenDollars(text.slice(i), []))
      : undefined;
    shown += source ? "a".repeat(source.length) : text[i];
    i += source?.length ?? 1;
  }
  return shown;
}

function paragraphOf(text: string): string {
  const end = text.indexOf("\n\n");
  return end < 0 ? text : text.slice(0, end);
}

const DEFINES = /\\(?:[egx]?def|let|futurelet|global|long|(?:re)?newcommand|providecommand)(?![a-zA-Z])/;

/** KaTeX bounds how often macros are expanded, not what they expand to: a short formula could take minutes. */
export function definesMacros(source: string): boolean {
  return DEFINES.test(source);
}
