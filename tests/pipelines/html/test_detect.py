"""What is an HTML export and what only mentions tags."""

import pytest

from pipelines.html.detect import looks_like_html
from tests.pipelines.html.golden_pairs import pairs

EXPORTS = [
    "<p>Hello</p>",
    "  \n<p>Hello</p>\n",
    "<P>Hello</P>",
    "<p>a</p>\n\n<p>b</p>",
    "<p>2 / 2</p><p>answer</p>",
    "<div>2 / 2</div><div>answer</div>",
    '<div class="markdown prose w-full break-words dark:prose-invert light"><p>Hi</p></div>',
    '<div class="flex flex-col"><div class="markdown prose"><p>cut in the mid',
    '<div class="markdown prose"><p>```x</p>\n```\n</div>',
    '<pre><div class="bg-black"><div class="flex"><span>python</span><button>Copy code</button></div></div></pre>',
    "<pre><code>```python\nx\n```\n    &lt;p&gt;</code></pre>",
    '<pre><code class="language-html">    <span>&lt;p&gt;</span></code></pre>',
    "<h2>Title</h2><p>text</p>",
    "<ul><li>a</li></ul>",
    "<ul>\n<li>a</li>\n</ul>\n<p>b</p>",
    '<ol start="3"><li>a</li></ol>',
    "<table><tr><td>a</td></tr></table>",
    "<blockquote><p>a</p></blockquote>",
    "<p>Use <code>&lt;div&gt;</code></p>",
    "<p>x</p><script>alert(1)</script>",
    "<p>a</p><hr><p>b</p>",
    "<p>1. no list</p><p># no heading</p>",
    "<p>one\ntwo</p>",
    "<h1>Hello</h1>\n<p>World <b>x</b></p>",
    '<p class="">a</p><p dir="ltr" data-id="7">b</p>',
    '<div class="whitespace-pre-wrap">a</div>',
    '<ul class="contains-task-list"><li class="task-list-item"><input type="checkbox"> a</li></ul>',
    '<p>a</p><table><thead><tr><th style="text-align:right" align="right">n</th></tr></thead></table>',
    '<p><a href="https://x.org/?id=1" title=":x">a</a> <span class="katex" style="x">b</span></p>',
    '<p>a</p><pre><code>&lt;a :href="x"&gt; <div id="app"></div></code></pre>',
]
TEXTS = [
    "",
    "Hello",
    "Use the <div> tag",
    "<div> elements are boxes, <span> elements are not",
    "<p> and </p> enclose a paragraph.",
    "std::vector<int> v; List<String> x",
    "<int> is a type parameter",
    "<T>(x: T) => x",
    "if a<b and c>d then",
    "2 / 2\n\nThe answer",
    "a < b",
    "<3",
    "< p >",
    "<",
    "<p",
    "A line<br>and another",
    "<br>",
    "<b>Note:</b> this is markdown with an inline tag.",
    "<sub>small</sub> print",
    "Here is a page:\n\n```html\n<p>Hello</p>\n```\n",
    "```html\n<p>Hello</p>\n```",
    "    <p>indented code</p>\n\nand text",
    "`<p>Hello</p>` is a paragraph",
    "# Title\n\n<p>Hello</p>",
    "- <p>item</p>",
    "| <p>a</p> |\n| --- |",
    '<div align="center">logo</div>\n\n# Project\n\nText',
    "<details>\n<summary>More</summary>\n\n```python\nx = 1\n```\n\n</details>",
    "<!DOCTYPE html>\n<html><body><p>x</p></body></html>",
    "<html><body><p>x</p></body></html>",
    '<div class="box">\n    <h1>Title</h1>\n    <p>Text</p>\n</div>',
    "<ul>\n\t<li>a</li>\n</ul>",
    '<form action="/x"><input name="y"></form>',
    '<div><form action="/x"><label>y</label></form></div>',
    "<nav><ul><li>a</li></ul></nav>",
    '<div class="card">\n<h2>Title</h2>\n<p class="lead">Body</p>\n</div>',
    '<div class="container"><p>Body</p></div>',
    '<ul class="nav"><li><a href="/">Home</a></li></ul>',
    '<p align="center">\n<img src="logo.png">\n</p>',
    '<div id="app">{{ message }}<br><button @click="go">Go</button></div>',
    '<div><p v-if="seen">{{ message }}</p></div>',
    '<ul><li :key="item">a</li></ul>',
    '<p style="color: red">Red</p>',
    "<p>a</p><h2 id=b>b</h2>",
    '<div id="app" class="box"></div>\n<script src="app.js"></script>',
    "<details>\n<summary>More</summary>\n<p>Text</p>\n</details>",
    "<think>Let me see.</think>The answer",
    "<http://example.com> is a link",
    "<user@example.com>",
    "<!-- comment -->text",
    "<xml><p>x</p></xml>",
    "<pre> keeps the white space of its text",
    "<p>Hello</p> is what you write, then the browser shows it.",
    "\\<p\\>Hello\\</p\\>",
    "&lt;p&gt;Hello&lt;/p&gt;",
]


@pytest.mark.parametrize("text", EXPORTS)
def test_an_export_is_html(text: str) -> None:
    assert looks_like_html(text)


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_mentions_tags_is_text(text: str) -> None:
    assert not looks_like_html(text)


def test_the_markdown_of_the_golden_corpus_is_text() -> None:
    assert [pair.name for pair in pairs() if looks_like_html(pair.markdown)] == []


def test_exports_of_the_golden_corpus_are_html() -> None:
    exports = [pair for pair in pairs() if pair.name.startswith(("sharegpt", "code", "tables", "lists", "headings"))]
    texts = [pair.name for pair in exports if not looks_like_html(pair.html)]
    assert texts == [  # they have text beside blocks, or the style of an author
        "code: code in the middle of a paragraph",
        "lists: a list between texts",
        "sharegpt: cups of flour as text",
        "sharegpt: text that is no element is no counter",
        "sharegpt: what is hidden by its own attributes is not in the answer",
        "sharegpt: a counter and text",
    ]
