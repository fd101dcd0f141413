"""An HTML answer as markdown: `to_markdown`, the one function behind which two libraries work.

Called by the step `html_to_markdown`. Both converters get what `prepass.prepare` leaves and give the same style: ATX
headings, `-` bullets, `1.` numbers that keep their start, `**` and `*`, fences with a language, pipe tables, one empty
line between blocks, no backslash in prose: text is written as people write it, even where a renderer would then take
`# x` at the begin of a paragraph for a heading. Code is exact.
"""

import re
from functools import cache
from typing import Any, Literal

from pipelines.html.prepass import SAFE_SCHEMES, prepare
from services.errors import InvalidRequest

Converter = Literal["html-to-markdown", "markdownify"]
KEPT_TAGS = (
    "a abbr b blockquote br code dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i img input kbd li"
    " mark ol p q s samp section small span strike strong sub summary sup table tbody td tfoot th thead tr u ul"
).split()
KEPT_ATTRIBUTES = {
    "a": ["href", "title"],
    "img": ["src", "alt", "title"],
    "ol": ["start"],
    "input": ["type", "checked"],
    "td": ["colspan"],
    "th": ["colspan"],
}

_MAY_ACT = re.compile(r"<(?:script|style|i?frame|object|embed|applet)|\son\w+\s*=|script\s*:", re.IGNORECASE)


def to_markdown(html: str, converter: Converter) -> str:
    """Convert one turn. Raises InvalidRequest if the converter of that name does not exist or cannot read the turn."""
    if converter not in CONVERTERS:
        raise InvalidRequest(f"no converter {converter!r}: choose one of {', '.join(CONVERTERS)}")
    html = _whole_characters(html)
    prepared = prepare(html)
    convert = CONVERTERS[converter]
    active = _MAY_ACT.search(html) is not None
    for number, nested in prepared.nested.items():
        prepared.pieces[number] = convert(nested, active).strip()
    return prepared.finish(convert(prepared.html, active))


def _whole_characters(html: str) -> str:
    """Pairs of surrogates become their character, lone ones the replacement character: no parser takes them."""
    try:
        html.encode()
    except UnicodeEncodeError:
        html = html.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return html.replace("\0", "\ufffd")


def _with_html_to_markdown(html: str, active: bool) -> str:
    from html_to_markdown import ConversionError, convert

    try:
        return convert(html, _options()).content or ""
    except ConversionError as error:
        raise InvalidRequest(
            f"html-to-markdown cannot read this turn ({error}): try the converter markdownify"
        ) from error


@cache
def _options() -> Any:
    from html_to_markdown import ConversionOptions, PreprocessingOptions

    return ConversionOptions(
        bullets="-",
        autolinks=False,
        compact_tables=True,
        extract_metadata=False,
        infer_dimensions=False,
        include_blockquote_citations=False,
        expand_abbreviations=False,
        highlight_style="none",
        hidden_content="all",
        sub_symbol="<sub>",
        sup_symbol="<sup>",
        preprocessing=PreprocessingOptions(enabled=False),
    )


def _with_markdownify(html: str, active: bool) -> str:
    from pipelines.html.bs4_markdown import convert

    return convert(_bleached(html) if active else html)


def _bleached(html: str) -> str:
    """Only known tags, attributes and schemes are left: a second look at what the pre-pass has removed already."""
    import bleach

    return str(bleach.clean(html, KEPT_TAGS, KEPT_ATTRIBUTES, SAFE_SCHEMES, strip=True))


CONVERTERS = {"html-to-markdown": _with_html_to_markdown, "markdownify": _with_markdownify}
