"""Converts an HTML answer to markdown: `to_markdown` calls one of two libraries.

The step `html_to_markdown` calls it. Both converters get the output of `prepass.prepare` and write the same style: ATX
headings, `-` bullets, `1.` numbers that keep their start, `**` and `*`, fences with a language, pipe tables, one empty
line between blocks, no backslash in prose: text is written as people write it, even where a renderer would then take
`# x` at the begin of a paragraph for a heading. Code is exact.
"""

import re
from functools import cache
from typing import Any, Literal

from pipelines.html.prepass import HEADINGS_AND_CELLS, SAFE_SCHEMES, prepare
from pipelines.html.usual import usual_markdown
from services.errors import InvalidRequest

Converter = Literal["html-to-markdown", "markdownify"]
# fmt: off
KEPT_TAGS = (
    "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em", "figcaption",
    "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "input", "kbd", "li", "mark", "ol", "p", "q",
    "s", "samp", "section", "small", "span", "strike", "strong", "sub", "summary", "sup", "table", "tbody", "td",
    "tfoot", "th", "thead", "tr", "u", "ul",
)
# fmt: on
KEPT_ATTRIBUTES = {
    "a": ["href", "title"],
    "img": ["src", "alt", "title"],
    "ol": ["start"],
    "input": ["type", "checked"],
    "td": ["colspan"],
    "th": ["colspan"],
}

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_ACTIVE = tuple(  # in lower case; three patterns, each with a literal begin, are ten times as fast as one
    re.compile(pattern)
    for pattern in (r"<(?:script|style|i?frame|object|embed|applet)", r"\son[a-z]+\s*=", r"script\s*:")
)
_HOLDERS = ("body", "p", "div", "span", "br")


def to_markdown(html: str, converter: Converter) -> str:
    """Convert one turn. Raises InvalidRequest if the converter of that name does not exist or cannot read the turn.

    Elements nested too deep are such a turn: one library stops there without a word, the other at Python's limit.
    """
    if converter not in CONVERTERS:
        raise InvalidRequest(f"no converter {converter!r}: choose one of {', '.join(CONVERTERS)}")
    html = _whole_characters(html)
    usual = usual_markdown(html)
    return parsed_markdown(html, converter) if usual is None else usual


def parsed_markdown(html: str, converter: Converter) -> str:
    """The markdown of any HTML, of whole characters."""
    prepared = prepare(html)
    convert = CONVERTERS[converter]
    if converter == "markdownify" and _carries_active_content(html):
        prepared.html = _bleached(prepared.html)
        prepared.nested = {number: _bleached(nested) for number, nested in prepared.nested.items()}
    for number, nested in prepared.nested.items():
        prepared.pieces[number] = convert(nested).strip()
    return prepared.finish(convert(prepared.html))


def is_empty(html: str) -> bool:
    """True if an empty markdown loses nothing of this turn: it has no text, and no element but those that hold text."""
    from selectolax.lexbor import LexborHTMLParser

    body = LexborHTMLParser(_whole_characters(html)).body
    return body is None or (not body.text().strip() and all(node.tag in _HOLDERS for node in body.css("*")))


def _carries_active_content(html: str) -> bool:
    """True also for a turn that only talks about it: to look twice changes nothing."""
    lower = html.lower()
    return any(pattern.search(lower) is not None for pattern in _ACTIVE)


def _whole_characters(html: str) -> str:
    """Pairs of surrogates become their character, lone ones the replacement character: no parser takes them."""
    try:
        html.encode()
    except UnicodeEncodeError:
        html = html.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return html.replace("\0", "\ufffd")


def _with_html_to_markdown(html: str) -> str:
    """The library's native function: its wrapper translates the options anew for each turn, and takes as long again."""
    from html_to_markdown import ConversionError, InvalidInputError, _html_to_markdown

    try:
        return _html_to_markdown.convert(html, _options()).content or ""
    except InvalidInputError:  # so many control characters that it sees a binary file
        return _html_to_markdown.convert(_CONTROL_CHARACTERS.sub("", html), _options()).content or ""
    except ConversionError as error:
        raise InvalidRequest(
            f"html-to-markdown cannot read this turn ({error}): try the converter markdownify"
        ) from error


@cache
def _options() -> Any:
    from html_to_markdown import _html_to_markdown as native

    return native.ConversionOptions(
        bullets="-",
        autolinks=False,
        compact_tables=True,
        extract_metadata=False,
        infer_dimensions=False,
        keep_inline_images_in=list(HEADINGS_AND_CELLS),
        include_blockquote_citations=False,
        expand_abbreviations=False,
        highlight_style=native.HighlightStyle.NONE,
        sub_symbol="<sub>",
        sup_symbol="<sup>",
        preprocessing=native.PreprocessingOptions(enabled=False),
    )


def _with_markdownify(html: str) -> str:
    from pipelines.html.bs4_markdown import convert

    try:
        return convert(html)
    except (RecursionError, ValueError) as error:  # nested too deep; a number that is none
        raise InvalidRequest(f"markdownify cannot read this turn: {error}") from error


def _bleached(html: str) -> str:
    """Only known tags, attributes and schemes are left: a second look at what the pre-pass has removed already."""
    import bleach

    return str(bleach.clean(html, KEPT_TAGS, KEPT_ATTRIBUTES, SAFE_SCHEMES, strip=True))


CONVERTERS = {"html-to-markdown": _with_html_to_markdown, "markdownify": _with_markdownify}
