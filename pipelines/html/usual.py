"""Writes the markdown of an answer that holds nothing but what chat pages use most, and needs no parser for it.

`convert.to_markdown` calls it first; it answers None for all other HTML, which goes through the pre-pass and a
converter. With 80 of 100 answers usual, all took 0.71 s instead of 1.30 (docs/benchmarks.md). Both ways write the same
characters: a test writes 3,000 answers, of which one in fourteen is usual, and compares those.

    answer   ShareGPT's `div` around blocks, or blocks alone
    blocks   `p`, `h1` to `h6`, `ul`, `ol`, `blockquote` of paragraphs, `table`, and code in ChatGPT's frame
    items    text and perhaps a list; or blocks, of which the first is a paragraph
    text     words with single spaces, `strong`, `em` and `code` around words, links, five entities

Tags are closed, in order and without attributes, but for those of the frame and of links.
"""

import re
from collections.abc import Callable
from html import unescape
from typing import NoReturn

from pipelines.html.prepass import MAY_COUNT, NO_LANGUAGE, fenced

MAX_LISTS = 8  # one within the other

_ANSWER = re.compile(r'<div class="markdown prose[^"<>]*">(.*)</div>', re.DOTALL)
_CODE = re.compile(
    r'<pre><div class="[^"<>]*"><div class="[^"<>]*"><span>[^<>]*</span><button class="[^"<>]*">'
    r"(?:<svg(?:[^<]|<(?!/svg>|button|/button))*+</svg>)?Copy code</button></div>"
    r'<div class="[^"<>]*"><code class="(?:!whitespace-pre )?hljs language-([\w+#.-]+)">'
    r'((?:[^<\r]++|<span class="hljs-[\w -]*+">|</span>)*+)</code></div></div></pre>'
)
# A first paragraph that the pre-pass might take for the counter of the page, whatever is marked in it.
_LIKE_COUNTER = re.compile(r"<p>(?:[\d /]|<(?!/p>)[^<>]*+>)++</p>")
_SPAN = re.compile(r"</?span[^>]*>")
# Of ASCII: html-to-markdown encodes other letters.
_LINK = r'(?a:a href="https?://[\w.~:/?#@!$*+,;=%-]*+(?:&amp;[\w.~:/?#@!$*+,;=%-]*+)*+"(?: target="_\w+")?)'
_TAG = re.compile(rf"<(/?(?:p|h[1-6]|[uo]l|li|strong|em|code|a|blockquote|table|thead|tbody|t[rdh])|pre|{_LINK})>")
_ENTITY = "(?:amp|lt|gt|quot|#39);"
_OTHER_ENTITY = re.compile(f"&(?!{_ENTITY})")
# White space that a converter would change, marks of the pre-pass, what is no tag of ours, and runs that
# html-to-markdown takes for fences and rules.
_OTHER_TEXT = re.compile(rf"  |[^\S ]|[\x00-\x1f\x7f-\x9f\ue000-\uf8ff<>]|&(?!{_ENTITY})|([`~_*=-])\1\1")
_ESCAPED_IN_CELLS = re.compile(r"[|*\\]")
_SET_APART = ("ul", "ol", "blockquote")  # two in a row could be read as one
_EMPHASIS = {"strong": "**", "em": "*", "code": "`"}


class _Other(Exception):
    """Something that only a parser knows how to read."""


def usual_markdown(html: str) -> str | None:
    """The markdown of an answer without anything unusual; None for another."""
    answer = _ANSWER.fullmatch(html)
    body = answer[1] if answer else html
    if MAY_COUNT.search(body) or _LIKE_COUNTER.match(body):
        return None
    codes: list[str] = []
    try:
        if "<pre>" in body:
            body = _CODE.sub(lambda match: _taken(match, codes), body)
            if body.count("<pre>") != len(codes):
                return None
        first, *parts = _TAG.split(body)
        tags, texts = parts[::2], parts[1::2]
        if first or not tags or _OTHER_TEXT.search("|".join(texts)):
            return None
        return "\n\n".join(_Writer(tags, texts, codes).blocks(""))
    except _Other:
        return None


def _taken(match: re.Match[str], codes: list[str]) -> str:
    language, code = match.groups()
    if language.lower() in NO_LANGUAGE or _OTHER_ENTITY.search(code):
        raise _Other
    codes.append(fenced(unescape(_SPAN.sub("", code)).removesuffix("\n"), language))
    return "<pre>"


class _Writer:
    """Reads tags, each with the text behind it, from the first to the last."""

    def __init__(self, tags: list[str], texts: list[str], codes: list[str]) -> None:
        self._tags = [*tags, ""]
        self._texts = [*texts, ""]
        self._codes = iter(codes)
        self._at = 0
        self._num_lists = 0

    def blocks(self, end: str) -> list[str]:
        """All blocks up to this tag, which is passed."""
        found, before = [], ""
        while (tag := self._tags[self._at]) != end:
            write = _BLOCKS.get(tag)
            if write is None or (tag == before and tag in _SET_APART):
                raise _Other
            found.append(write(self, tag))
            before = tag
        if not found:
            raise _Other
        self._pass(end)
        return found

    def _pass(self, tag: str) -> None:
        """Go on behind this tag; no text follows it."""
        if self._tags[self._at] != tag or self._texts[self._at]:
            raise _Other
        self._at += 1

    def _line(self) -> str:
        """The text behind the current tag and what is marked in it, up to the tag of a block, on which it stops."""
        tags, texts, at = self._tags, self._texts, self._at
        pieces = [texts[at]]
        while (tag := tags[at + 1]) in _EMPHASIS or tag[:2] == "a ":
            inner = texts[at + 1]
            if not inner or inner.strip() != inner or tags[at + 2] != f"/{tag.split(' ', 1)[0]}":
                raise _Other
            if len(pieces) > 1 and not pieces[-1]:
                raise _Other  # `</em><em>`: a converter joins what is marked alike
            pieces += [_marked(tag, inner), texts[at + 2]]
            at += 2
        self._at = at + 1
        line = "".join(pieces)
        if line.strip() != line:
            raise _Other
        return unescape(line) if "&" in line else line

    def _filled_line(self) -> str:
        return self._line() or _refuse()

    def paragraph(self, tag: str) -> str:
        line = self._filled_line()
        self._pass(f"/{tag}")
        return line

    def heading(self, tag: str) -> str:
        return "#" * int(tag[1]) + " " + self.paragraph(tag)

    def code(self, tag: str) -> str:
        self._pass(tag)
        return next(self._codes)

    def quotation(self, tag: str) -> str:
        self._pass(tag)
        paragraphs = []
        while self._tags[self._at] == "p":
            paragraphs.append(self.paragraph("p"))
        self._pass(f"/{tag}")
        return "\n>\n".join(f"> {paragraph}" for paragraph in paragraphs) or _refuse()

    def listing(self, tag: str) -> str:
        self._num_lists += 1
        if self._num_lists > MAX_LISTS:
            raise _Other
        self._pass(tag)
        items: list[str] = []
        kinds: set[bool] = set()
        while self._tags[self._at] == "li":
            marker = "- " if tag == "ul" else f"{len(items) + 1}. "
            text, is_loose = self._item()
            items.append(_indented(text, marker))
            kinds.add(is_loose)
        if len(kinds) != 1:
            raise _Other
        self._num_lists -= 1
        self._pass(f"/{tag}")
        return ("\n\n" if kinds == {True} else "\n").join(items)

    def _item(self) -> tuple[str, bool]:
        """An item, and whether it is of blocks."""
        if self._tags[self._at + 1] == "p":
            self._pass("li")
            return "\n\n".join(self.blocks("/li")), True
        line = self._filled_line()
        if (tag := self._tags[self._at]) in ("ul", "ol"):
            if self._tags[self._at + 2] == "p":
                raise _Other  # items of blocks under a line: converters differ
            line += "\n" + self.listing(tag)
        self._pass("/li")
        return line, False

    def table(self, tag: str) -> str:
        if self._num_lists:
            raise _Other
        start = self._at
        self._pass(tag)
        self._pass("thead")
        head = self._row("th")
        self._pass("/thead")
        self._pass("tbody")
        rows = [head, ["---"] * len(head)]
        while self._tags[self._at] == "tr":
            rows.append(self._row("td"))
        self._pass("/tbody")
        self._pass(f"/{tag}")
        if len({len(row) for row in rows}) != 1 or _ESCAPED_IN_CELLS.search("".join(self._texts[start : self._at])):
            raise _Other
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _row(self, kind: str) -> list[str]:
        self._pass("tr")
        cells = []
        while self._tags[self._at] == kind:
            cells.append(self.paragraph(kind))
        self._pass("/tr")
        return cells or _refuse()


def _refuse() -> NoReturn:
    raise _Other


def _marked(tag: str, text: str) -> str:
    if mark := _EMPHASIS.get(tag):
        if tag == "code" and "`" in text:
            raise _Other
        return f"{mark}{text}{mark}"
    if "[" in text or "]" in text:
        raise _Other
    _, url, _ = tag.split('"', 2)
    return f"[{text}]({url})"


def _indented(text: str, marker: str) -> str:
    if "\n" not in text:
        return marker + text
    first, *rest = text.split("\n")
    indent = " " * len(marker)
    return "\n".join([marker + first, *(indent + line if line else line for line in rest)])


_BLOCKS: dict[str, Callable[[_Writer, str], str]] = {
    "p": _Writer.paragraph,
    **{f"h{level}": _Writer.heading for level in range(1, 7)},
    "ul": _Writer.listing,
    "ol": _Writer.listing,
    "pre": _Writer.code,
    "blockquote": _Writer.quotation,
    "table": _Writer.table,
}
