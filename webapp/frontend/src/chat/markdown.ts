/**
 * Markdown to HTML, one top-level block at a time, so that a stream re-renders only its last block. Pure.
 *
 * A model's text is hostile. Raw HTML is text here (its tokenizers are off, so `<` is always escaped), links go only to
 * http, https and mailto, and images become links, since loading one tells its server what was said. The page still
 * passes the result through DOMPurify before it reaches the DOM.
 */

import { Marked, type MarkedExtension, type Tokens } from "marked";
import { formulas } from "./formulas";
import { highlight } from "./highlight";
import { escapeHtml } from "./html";

const MARKDOWN: MarkedExtension = {
  gfm: true,
  breaks: true,
  tokenizer: {
    html: () => undefined,
    tag: () => undefined,
  },
  renderer: {
    html: ({ text }) => escapeHtml(text),
    code: ({ text, lang }) => codeBlock(text, lang ?? ""),
    image: ({ href, text }) => link(href, `Image: ${escapeHtml(text || href)}`),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    link({ href, tokens }) {
      return link(href, this.parser.parseInline(tokens));
    },
  },
};
const whole = new Marked(MARKDOWN, formulas(false));
const growing = new Marked(MARKDOWN, formulas(true));

/** The blocks of a growing text. `update` costs about as much as the last block is long. */
export class BlockStream {
  private text = "";
  /** Blocks before the last one, and where the last one starts. */
  private stable: string[] = [];
  private tailStart = 0;

  /** HTML of each top-level block, in order. A whole answer (`final`) is lexed anew: later text may define its links. */
  update(text: string, final: boolean): string[] {
    if (final || !text.startsWith(this.text)) this.reset();
    this.text = text;
    const marked = final ? whole : growing;
    const tokens = lex(marked, text.slice(this.tailStart));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    if (last < 0) return this.stable;
    for (const token of tokens.slice(0, last)) {
      this.tailStart += token.raw.length;
      if (token.type !== "space") this.stable.push(render(marked, token, tokens.links));
    }
    return [...this.stable, render(marked, tokens[last] as Tokens.Generic, tokens.links)];
  }

  private reset(): void {
    this.stable = [];
    this.tailStart = 0;
  }
}

type Links = ReturnType<Marked["lexer"]>["links"];
type TokenList = Tokens.Generic[] & { links: Links };

/** Text that nests deeper than the parser's stack is one plain paragraph. */
function lex(marked: Marked, text: string): TokenList {
  try {
    // The lexer would normalise line ends itself, and then `raw` would not add up to our offsets.
    return marked.lexer(text.replace(/\r/g, " ")) as TokenList;
  } catch (error) {
    console.warn("markdown is shown as plain text:", error);
    return Object.assign([{ type: "plain", raw: text }], { links: {} });
  }
}

function render(marked: Marked, token: Tokens.Generic, links: Links): string {
  if (token.type === "plain") return `<p>${escapeHtml(token.raw)}</p>`;
  try {
    return marked.parser(Object.assign([token], { links }) as Parameters<Marked["parser"]>[0]);
  } catch (error) {
    console.warn("markdown is shown as plain text:", error);
    return `<p>${escapeHtml(token.raw)}</p>`;
  }
}

function codeBlock(code: string, info: string): string {
  const language = info.trim().split(/\s/)[0]?.toLowerCase() ?? "";
  const html = highlight(code, language) ?? escapeHtml(code);
  return `<pre><code class="language-${escapeHtml(language)}">${html}</code></pre>`;
}

function link(href: string, html: string): string {
  if (!isSafeLink(href)) return `${html} (${escapeHtml(href)})`;
  return `<a href="${escapeHtml(href)}" target="_blank" rel="noopener noreferrer nofollow">${html}</a>`;
}

/** Only absolute http, https and mailto: a relative link in an answer would point into this site. */
export function isSafeLink(href: string): boolean {
  try {
    return ["http:", "https:", "mailto:"].includes(new URL(href).protocol);
  } catch {
    return false;
  }
}
