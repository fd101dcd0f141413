/** Which parts of a text are LaTeX: their source reaches the page as it came, and nothing else changes. */

import assert from "node:assert/strict";
import test from "node:test";
import { definesMacros } from "../../src/chat/formulas";
import { BlockStream } from "../../src/chat/markdown";

const render = (text: string) => new BlockStream().update(text, true).join("");
const unescaped = (html: string) =>
  html
    .replace(/&lt;/g, "<")
    .replace(/&gt;/g, ">")
    .replace(/&#39;/g, "'")
    .replace(/&quot;/g, '"')
    .replace(/&amp;/g, "&");

function formulasOf(text: string): string[] {
  return [...render(text).matchAll(/<span class="formula">(.*?)<\/span>/gs)].map((found) => unescaped(found[1] ?? ""));
}

test("each way to write a formula keeps its source, markdown characters included", () => {
  for (const formula of [
    "\\(x\\)",
    "\\(a_1 * b_2 * c_3\\)",
    "\\[x = \\frac{a}{b}\\]",
    "$$\\sum_{i=1}^n x_i < y$$",
    "$x$",
    "$AB$",
    "$n+1$",
    "$\\alpha$",
    "$2^n$",
    "$3 \\times 4$",
  ]) {
    assert.deepEqual(formulasOf(`Let ${formula} be so, *and* more.`), [formula]);
    assert.deepEqual(formulasOf(`- item **${formula}**\n- two`), [formula], "in a list, in bold");
    assert.match(render(`Let ${formula} be so, *and* more.`), /<em>and<\/em>/);
  }
});

test("a formula on lines of its own may hold what would be a heading, a list or a blank line", () => {
  for (const inner of ["x\n=\ny", "a\n- b\n+ c", "a\n\nb", "\\begin{aligned}\n# &= 1 \\\\\n> &= 2\n\\end{aligned}"]) {
    for (const formula of [`\\[\n${inner}\n\\]`, `$$\n${inner}\n$$`]) {
      assert.deepEqual(formulasOf(`It holds:\n${formula}\nwhere **x** is one.\n\nNext`), [formula], formula);
      assert.deepEqual(formulasOf(formula), [formula]);
    }
  }
  const indented = "1. First:\n   \\[\n   x = 1\n   \\]\n2. Second";
  assert.equal(formulasOf(indented).length, 1);
  assert.equal((render(indented).match(/<li>/g) ?? []).length, 2);
});

test("money is no formula", () => {
  for (const text of [
    "It costs $5 and $6.",
    "From $5 to 6$ a piece",
    "$20,000 and USD$30,000",
    "$5/$6, US$5-$10, 5$ or 6$",
    "set $HOME and $PATH, or $HOME/$USER",
    "$5 for one and 6$ for two",
    "$5 for the_one and 6$ for two",
    "A $ b $ c",
    "\\$5 and \\$6",
  ]) {
    assert.deepEqual(formulasOf(text), [], text);
    assert.equal(
      unescaped(render(text))
        .replace(/<\/?[a-z]+>/g, "")
        .trim(),
      text.replaceAll("\\$", "$"),
    );
  }
});

test("delimiters without a partner keep their backslashes", () => {
  for (const text of ["\\(x", "x\\)", "\\[ and more", "a \\] b", "\\( \\)", "\\[\\]", `\\(${"x".repeat(5_000)}\\)`])
    assert.equal(render(text).trim(), `<p>${text}</p>`);
  assert.match(render("\\[not a link\\](https://example.org)"), /\\\[not a link\\\]/);
});

test("code holds no formula", () => {
  assert.deepEqual(formulasOf("`\\(x\\)` and\n\n```\n$$x$$\n\\[y\\]\n```"), []);
});

test("HTML in a formula is text", () => {
  assert.doesNotMatch(render("\\(<img src=x onerror=alert(1)>\\)\n\n$$<script>$$"), /<(img|script)/);
});

test("a growing answer ends as the whole one, and never shows half a formula as markdown", () => {
  const text = "Let \\(a_1 * b_1\\) be *so*.\n\n\\[\nx\n\n= y * z * w\n\\]\n\nThen $$a*b*c$$ and $x$.\n\nEnd.";
  const stream = new BlockStream();
  let last: string[] = [];
  for (let i = 1; i <= text.length; i++) {
    last = stream.update(text.slice(0, i), false);
    assert.doesNotMatch(last.join(""), /<em>(?!so)/, text.slice(0, i));
    assert.doesNotMatch(last.join(""), /<h[12]>/, text.slice(0, i));
  }
  assert.deepEqual(stream.update(text, true), last);
});

test("many unclosed delimiters cost no more than many words", () => {
  for (const piece of ["\\( ", "\\[ ", "$$ ", "$a ", "a\n\\[\n\n", "$$\n\n"]) {
    const started_ms = performance.now();
    render(piece.repeat(4_000));
    assert.ok(performance.now() - started_ms < 4_000, piece);
  }
});

test("a formula that defines a macro stays its source", () => {
  for (const source of ["\\(\\def\\a{x}\\a\\)", "$$\\newcommand{\\a}{x}$$", "\\[\\global\\let\\a=b\\]"])
    assert.ok(definesMacros(source), source);
  for (const source of ["\\(\\definite\\)", "\\(a \\leq b\\)", "\\(\\text{a def}\\)"])
    assert.ok(!definesMacros(source), source);
});
