/** Markdown of a hostile, half-finished text. DOMPurify comes after this, in the browser tests. */

import assert from "node:assert/strict";
import test from "node:test";
import { BlockStream, isSafeLink } from "../../src/chat/markdown";

const render = (text: string) => new BlockStream().update(text, true).join("");

test("raw HTML is text, as a block, inline and inside a list", () => {
  for (const evil of [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "<!-- x -->",
  ]) {
    for (const text of [evil, `a ${evil} b`, `- ${evil}`, `> ${evil}`, `# ${evil}`, `| a |\n|---|\n| ${evil} |`]) {
      assert.doesNotMatch(render(text), /<(img|script|svg|!--)/, text);
      assert.match(render(text), /&lt;/, text);
    }
  }
});

test("markdown inside unknown tags is still markdown", () => {
  assert.match(render("<think>\nhm **so**\n</think>"), /&lt;think&gt;[\s\S]*<strong>so<\/strong>/);
});

test("only http, https and mailto become links", () => {
  for (const href of [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "vbscript:x",
    "/etc",
    "//evil.example",
    "file:///x",
  ]) {
    assert.equal(isSafeLink(href), false, href);
    assert.doesNotMatch(render(`[click](${href})`), /<a/, href);
  }
  const html = render("[ok](https://example.org/?a=1&b=2)");
  assert.match(html, /href="https:\/\/example\.org\/\?a=1&amp;b=2" target="_blank" rel="noopener noreferrer nofollow"/);
  assert.match(render("https://example.org"), /<a href="https:\/\/example\.org"/);
  assert.match(render("[m](mailto:a@b.c)"), /<a href="mailto/);
});

test("an image is a link, so nothing is loaded", () => {
  const html = render("![cat](https://evil.example/?q=secret)");
  assert.doesNotMatch(html, /<img/);
  assert.match(html, /<a href="https:\/\/evil\.example.*Image: cat<\/a>/);
});

test("attributes cannot be broken out of", () => {
  assert.doesNotMatch(render('[x](https://a.b/"onmouseover="alert(1))'), /"onmouseover/);
  assert.doesNotMatch(render('```"><script>alert(1)</script>\nx\n```'), /<script/);
});

test("a half-open fence renders as code", () => {
  assert.match(render("Here:\n\n```python\nprint('<b>')"), /<pre><code class="language-python">/);
  assert.doesNotMatch(render("```html\n<b>hi"), /<b>/);
});

test("however a text is cut, the stream ends with the blocks of the whole, and finished blocks never change", () => {
  const text = [
    "# Title",
    "",
    "A *paragraph* with `code`.",
    "",
    "1. one",
    "",
    "2. two",
    "   - nested",
    "",
    "```js",
    "let a = 1;",
    "",
    "// blank line above",
    "```",
    "",
    "| a | b |",
    "|---|---|",
    "| 1 | 2 |",
    "",
    "> quote",
    "",
    "Setext",
    "---",
    "",
    "tail [ref] 😀",
    "",
    "[ref]: https://example.org",
  ].join("\n");
  const whole = new BlockStream().update(text, true);
  for (const step of [1, 2, 3, 7, 50]) {
    const stream = new BlockStream();
    let before: string[] = [];
    for (let end = step; end < text.length + step; end += step) {
      const blocks = stream.update(text.slice(0, end), false);
      assert.deepEqual(blocks.slice(0, Math.max(0, before.length - 1)), before.slice(0, -1));
      before = blocks;
    }
    assert.deepEqual(stream.update(text, true), whole);
  }
});

test("a rewind starts the blocks anew", () => {
  const stream = new BlockStream();
  stream.update("one\n\ntwo\n\nthree", false);
  assert.deepEqual(stream.update("one\n\nother", false), new BlockStream().update("one\n\nother", true));
});

test("carriage returns keep the offsets right", () => {
  const text = "one\r\n\r\ntwo\r\n\r\nthree";
  const stream = new BlockStream();
  for (let end = 1; end <= text.length; end++) stream.update(text.slice(0, end), false);
  assert.equal(stream.update(text, true).length, 3);
});

test("pathological text neither throws nor hangs", () => {
  for (const evil of [
    ">".repeat(5000),
    "[".repeat(20_000),
    "*a ".repeat(10_000),
    "- ".repeat(3000),
    "`".repeat(20_001),
    "|".repeat(20_000),
    "_a".repeat(10_000),
  ]) {
    const start = performance.now();
    render(evil);
    const ms = performance.now() - start;
    if (ms > 300) console.log(JSON.stringify(evil.slice(0, 4)), Math.round(ms), "ms");
    assert.ok(ms < 20_000, `${evil.slice(0, 4)} took ${ms} ms`);
  }
});
