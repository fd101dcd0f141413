"""markdownify in our style. Only `convert` calls it, and imports it late, since it imports BeautifulSoup.

Differences from the library: lists are loose where an item holds paragraphs, checkboxes are kept, pipes in cells are
escaped, a table's first row is its header, and nothing in prose is escaped.
"""

import re
from html import unescape
from typing import Any

from bs4 import BeautifulSoup
from bs4.element import Tag
from markdownify import ATX, MarkdownConverter

from pipelines.html.prepass import HEADINGS_AND_CELLS

Tags = set[str]  # the names of the elements around one
LOOSE_WITH = ("p", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "table", "hr", "div", "dl")

BLOCKS = ("article", "aside", "address", "center", "fieldset", "footer", "form", "header", "hgroup", "main", "nav")

MAX_COLUMNS = 1000  # that one cell may span, as browsers have it

VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")

_TOKEN = re.compile(r"""<(/?)([a-z][^\s>/]*)((?:[^>"]|"[^"]*")*)>|<!--.*?-->|([^<]+|<)""", re.DOTALL)
_ATTRIBUTE = re.compile(r"""([^\s=>"/]+)(?:="([^"]*)")?""")
_SPACES = re.compile(r"(?<=[^\s>|])  +(?=\S)")
_EMPTY_LINES = re.compile(r"\n{3,}")
_LINE = re.compile(r"\n(?=[^\n])")


class ElementOutsidePre(Tag):  # type: ignore[misc]  # untyped
    """The library asks each element for a `pre` around it, a fifth of its time; the pre-pass has taken them all out."""

    def find_parent(self, name: Any = None, attrs: Any = None, **kwargs: Any) -> Any:
        return None if name == "pre" else super().find_parent(name, attrs or {}, **kwargs)


class ChatMarkdown(MarkdownConverter):  # type: ignore[misc]  # untyped
    class Options:
        heading_style = ATX
        bullets = "-"
        autolinks = False
        escape_asterisks = False
        escape_underscores = False
        sub_symbol = "<sub>"
        sup_symbol = "<sup>"
        table_infer_header = True
        keep_inline_images_in = HEADINGS_AND_CELLS

    def convert_list(self, el: Any, text: str, parent_tags: Tags) -> str:
        items = [item for item in el.children if item.name == "li"]
        if any(child.name in LOOSE_WITH for item in items for child in item.children):
            text = text.replace("\0", "\n")
        text = text.replace("\0", "").strip("\n")
        return f"{_gap_before(el, parent_tags)}{text}\n\n"

    convert_ul = convert_list
    convert_ol = convert_list

    def convert_li(self, el: Any, text: str, parent_tags: Tags) -> str:
        """One item; the zero character after it becomes an empty line if the list turns out to be loose.

        A heading or a cell is one line, in which a marker would be text.
        """
        if not parent_tags.isdisjoint(HEADINGS_AND_CELLS):
            return f" {text.strip()} "
        marker = self._marker(el)
        indented = _LINE.sub("\n" + " " * len(marker), text.strip("\n").strip())
        return f"{marker}{indented}".rstrip() + "\n\0"

    def _marker(self, el: Any) -> str:
        if el.parent is None or el.parent.name != "ol":
            return "- "
        start = el.parent.get("start") or "1"
        first = int(start) if start.isascii() and start.isdigit() else 1
        return f"{first + sum(sibling.name == 'li' for sibling in el.previous_siblings)}. "

    def convert_input(self, el: Any, text: str, parent_tags: Tags) -> str:
        if el.parent is None or el.parent.name not in ("li", "p"):
            return ""
        return "[x] " if el.has_attr("checked") else "[ ] "

    def convert_blockquote(self, el: Any, text: str, parent_tags: Tags) -> str:
        lines = text.strip().split("\n")
        if "_inline" in parent_tags or lines == [""]:
            return f" {lines[0]} "
        quoted = "\n".join(f"> {line}" if line else ">" for line in lines)
        return f"{_gap_before(el, parent_tags)}{quoted}\n\n"

    def convert_td(self, el: Any, text: str, parent_tags: Tags) -> str:
        spanned = el.get("colspan", "")
        num_columns = min(int(spanned[:4]), MAX_COLUMNS) if spanned.isascii() and spanned.isdigit() else 1
        cell = " ".join(text.split()).replace("|", r"\|")
        return f" {cell} |" + " |" * (num_columns - 1)

    convert_th = convert_td

    def convert_p(self, el: Any, text: str, parent_tags: Tags) -> str:
        return str(super().convert_p(el, text, parent_tags)) or "\n\n"

    def convert_table(self, el: Any, text: str, parent_tags: Tags) -> str:
        return f"\n\n{text.strip()}\n\n" if text.strip() else "\n\n"

    def convert_caption(self, el: Any, text: str, parent_tags: Tags) -> str:
        return f"\n\n*{text.strip()}*\n\n"

    convert_figcaption = convert_caption

    def convert_hN(self, n: int, el: Any, text: str, parent_tags: Tags) -> str:  # noqa: N802
        return str(super().convert_hN(n, el, text, parent_tags)) if text.strip() else ""

    def convert_summary(self, el: Any, text: str, parent_tags: Tags) -> str:
        return f"\n\n**{text.strip()}**\n\n" if text.strip() else ""

    def convert_dd(self, el: Any, text: str, parent_tags: Tags) -> str:
        return f"\n\n{text.strip()}\n\n"

    convert_dt = convert_dd


def _gap_before(el: Any, parent_tags: Tags) -> str:
    """A list or a quote may stand directly under the text of a list item. A list that does not start with 1 may not: it
    would be read as the end of that text."""
    if "li" not in parent_tags or (el.name == "ol" and el.get("start", "1") != "1"):
        return "\n\n"
    before = el.find_previous_sibling()
    return "\n\n" if before is not None and before.name in LOOSE_WITH else "\n"


def _inline(convert: Any) -> Any:
    """Emphasis of nothing but white space is a space."""

    def implementation(self: Any, el: Any, text: str, parent_tags: Tags) -> str:
        return str(convert(self, el, text, parent_tags)) if text.strip() else " " * bool(text)

    return implementation


for _name in ("b", "strong", "em", "i", "del", "s", "sub", "sup", "code", "kbd", "samp"):
    setattr(ChatMarkdown, f"convert_{_name}", _inline(getattr(MarkdownConverter, f"convert_{_name}")))
ChatMarkdown.convert_strike = ChatMarkdown.convert_del
for _name in BLOCKS:
    setattr(ChatMarkdown, f"convert_{_name}", MarkdownConverter.convert_div)


def _parse(html: str) -> BeautifulSoup:
    """The tree of HTML that a serialiser has written. Python's own parser takes twice as long: it expects anything."""
    soup = BeautifulSoup("", "html.parser", element_classes={Tag: ElementOutsidePre})
    soup.reset()
    for end, name, attributes, text in _TOKEN.findall(html):
        if text:
            soup.handle_data(unescape(text) if "&" in text else text)
        elif end:
            soup.handle_endtag(name)
        elif name:
            values = {key: unescape(value) for key, value in _ATTRIBUTE.findall(attributes)} if attributes else {}
            soup.handle_starttag(name, None, None, values)
            if name in VOID:
                soup.handle_endtag(name)
    soup.endData()
    while soup.currentTag.name != soup.ROOT_TAG_NAME:
        soup.popTag()
    return soup


def convert(html: str) -> str:
    soup = _parse(html)
    markdown = str(ChatMarkdown().convert_soup(soup)).replace("\0", "")
    return _EMPTY_LINES.sub("\n\n", _SPACES.sub(" ", markdown))  # code is not in there: only a token stands for it
