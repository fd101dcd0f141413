"""Handles what only chat exports contain, on the parsed tree, before a general converter sees it.

`convert.to_markdown` calls `prepare`, converts the HTML that `prepare` returns, and calls `Prepared.finish` on the
markdown. A converter must not change code blocks, formulas and code spans with backticks. So `prepare` replaces each by
a token of private-use characters that occur nowhere in the turn, and `finish` puts them back.

    code blocks    the text of the `code` elements exactly, syntax highlighting flattened; the language is in a class
                   (`language-x`, `lang-x`, `hljs x`, `highlight-source-x`), else in ShareGPT's header above the code
    formulas       the TeX that KaTeX and MathJax keep beside what they draw: `$…$`, display `$$…$$`
    the counter    an element whose whole text is `N / M` (1 <= N <= M, M >= 2) and that either stands between buttons
                   or is the first block of the turn and the only such element, with N = M or ShareGPT's answer after
                   it. `<p>2 / 3</p><p>is the fraction</p>` has no counter, nor have items, cells and lines of text
    the page       buttons, other controls, scripts, styles, frames, drawings, what is hidden: removed by their elements
    links          only schemes that carry no code; what would end a markdown destination early is percent-encoded
    lists          a list directly within a list belongs to the item before it; a list starts with a number of markdown
"""

import html as entities
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.errors import InvalidRequest

PRIVATE_USE = range(0xE000, 0xF900)
# fmt: off
UNWANTED = (
    "script", "style", "iframe", "frame", "object", "embed", "applet", "noscript", "noembed", "noframes", "template",
    "button", "select", "textarea", "svg", "canvas", "audio", "video", "map", "dialog", "input",
)
# fmt: on
MAX_DEPTH = 320  # markdownify takes two frames of Python's thousand for each; html-to-markdown drops text from 1,021 on
HEADINGS_AND_CELLS = ("td", "th", "h1", "h2", "h3", "h4", "h5", "h6")
# These in a list item or a quote are set apart and indented by us: converters differ.
SET_APART = ("table", "h1", "h2", "h3", "h4", "h5", "h6", "hr")
NESTED_BLOCKS = ", ".join(f"{outer} {inner}" for outer in ("li", "blockquote") for inner in SET_APART)
HIDDEN = "[hidden], " + ", ".join(
    f'[style*="{rule}" i]' for rule in ("display:none", "display: none", "visibility:hidden", "visibility: hidden")
)
PILL = "webpage-citation-pill"  # ChatGPT's link to a source, which stands in the text like a word
SAFE_SCHEMES = ("http", "https", "mailto", "tel", "ftp", "sftp", "ssh", "git", "irc", "magnet", "news", "sms", "xmpp")

_PRIVATE_USE = re.compile("[\ue000-\uf8ff]")
_COUNTER = re.compile(r"\s*(\d{1,4}) / (\d{1,4})\s*")
MAY_COUNT = re.compile(r">\s*\d{1,4} / \d{1,4}\s*<")
_TAG = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)")
_LANGUAGE_CLASS = re.compile(r"(?:language|lang|highlight-source)-([\w+#.-]+)")
_LANGUAGE_NAME = re.compile(r"[A-Za-z](?:[\w+#. -]{0,24}[\w+#])?")
NO_LANGUAGE = ("nohighlight", "no-highlight", "none", "undefined", "copy", "code")
_HIGHLIGHTERS = ("hljs", "sourceCode")  # their elements bear the language as a class of its own
# Bare text before the `code` of a `pre` is its header only if it is one of these: `python` is, `sudo` is not.
# fmt: off
_HEADER_LANGUAGES = (
    "bash", "c", "c#", "c++", "cpp", "csharp", "css", "dart", "diff", "go", "graphql", "haskell", "html", "java",
    "javascript", "js", "json", "jsx", "kotlin", "latex", "lua", "makefile", "markdown", "matlab", "perl", "php",
    "plaintext", "powershell", "python", "r", "ruby", "rust", "scala", "scss", "sh", "shell", "sql", "swift", "text",
    "ts", "tsx", "typescript", "xml", "yaml",
)
# fmt: on
_COPY_LABEL = "Copy code"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_URL_JUNK = re.compile(r"[\x00-\x20\x7f]")
_URL_ESCAPED = re.compile(r"[\x00-\x20<>\\\x7f]")
_START = re.compile("[0-9]{1,9}")  # that a numbered list of markdown may begin with
_BACKTICKS = re.compile(r"`+")
_BREAKS = re.compile(r"(?:<br>\s*){2,}")
_EDGE_BREAKS = re.compile(
    r"(?:<br>\s*)+(?=</(?:p|div|li|blockquote|h\d|dd|dt|td|th|body|section|article)>)|(?<=<p>)\s*(?:<br>\s*)+"
)
_BEFORE_QUOTE_OR_RULE = re.compile(r"(</(?:p|h\d|ul|ol|blockquote|table|div)>|<hr>)\s*(?=<(?:blockquote|hr)>)")
_AFTER_LIST_OR_QUOTE = re.compile(r"(</(?:ul|ol|blockquote)>|<hr>)\s*(?=<(?:p|h\d|table|div|ul|ol)[ >])")
_INLINE = "(?:a|b|code|del|em|i|kbd|s|samp|strike|strong|sub|sup)"
_NEWLINE_AFTER_INLINE = re.compile(rf"(</{_INLINE}>|<img [^>]*>)\n(?=[^<]|<(?:{_INLINE}|img)[ >])")
_BLANK_LINES = re.compile(r"\n\s*\n")
# What at the begin of a text would be escaped, since it could be read as markup.
_LIKE_MARKUP = re.compile(r">(\s*)(?=[#*+=`~|-]|&gt;|\d{1,9}[.)])")
_PREFIX = re.compile(r"(?:[ >]|- |\d+\. )*")
_MARKER = re.compile(r"[^ >]")


class Marks(NamedTuple):
    """Tokens of characters that the turn does not hold, and the text that each replaces while a converter works."""

    block: str  # begins the token of a piece that fills lines of its own
    inline: str  # begins the token of a piece within a line
    end: str  # ends both
    guard: str  # before text that looks like markup, so that nobody escapes it
    paragraph: str  # two line breaks: a new paragraph, wherever that is
    apart: str  # between blocks that a converter would set one under the other without an empty line


FIRST_MARKS = Marks(*(chr(PRIVATE_USE[number]) for number in range(len(Marks._fields))))


@dataclass(slots=True)
class Prepared:
    """HTML for a converter, and the texts to put back into the converter's markdown."""

    html: str
    marks: Marks
    pieces: list[str] = field(default_factory=list)
    # Pieces that are HTML, by their number: who converts the whole converts them too.
    nested: dict[int, str] = field(default_factory=dict)

    def finish(self, markdown: str) -> str:
        """The markdown with every piece in its place and no mark left."""
        text = markdown
        if self.marks.apart in text:
            line = re.compile(rf"(?:^[ >]*\n)?^([ >]*){self.marks.apart}\n(?:[ >]*\n)?", re.MULTILINE)
            text = line.sub(lambda match: match[1].rstrip() + "\n", text)
        if self.marks.block in text or self.marks.paragraph in text:
            block, paragraph = self.marks.block, self.marks.paragraph
            lines = text.split("\n")
            text = "\n".join([self._lay_out(line) if block in line or paragraph in line else line for line in lines])
        if self.marks.inline in text:
            token = re.compile(f"{self.marks.inline}(\\d+){self.marks.end}")
            text = token.sub(lambda match: self.pieces[int(match[1])], text)
        for mark in self.marks:  # the others are left only where broken HTML put a block where none can be
            text = text.replace(mark, "")
        return text.strip(" \t\n")

    def _lay_out(self, line: str) -> str:
        """A line that holds blocks becomes these blocks, with an empty line between two and its quote marks on each."""
        marks = self.marks
        prefix = _PREFIX.match(line)[0]  # type: ignore[index]  # matches the empty string at least
        parts = re.split(f"{marks.block}(\\d+){marks.end}|{marks.paragraph}", line[len(prefix) :])
        texts, numbers = parts[::2], [*parts[1::2], None]
        blocks = []
        for text, number in zip(texts, numbers, strict=True):
            if text.strip():
                blocks.append(text.strip())
            if number is not None:
                blocks.append(self.pieces[int(number)])
        indent = _MARKER.sub(" ", prefix)
        lines = "\n\n".join(blocks).split("\n")
        return prefix + "\n".join([lines[0], *(f"{indent}{rest}" if rest else indent.rstrip() for rest in lines[1:])])


def prepare(html: str) -> Prepared:
    """Parse the turn, mend it, and take out what no converter may touch. Raises InvalidRequest if it nests too deep."""
    from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser  # here: who only names a step loads no parser

    marks = _free_marks(html)
    body = LexborHTMLParser(html, options=LexborDocumentOptions.WO_EVENTS).body
    prepared = Prepared("", marks)
    if body is None:
        return prepared
    names = _TAG.findall(html)
    if len(names) > MAX_DEPTH and _is_deeper(body, MAX_DEPTH):
        raise InvalidRequest(
            f"this turn nests elements more than {MAX_DEPTH} deep: no converter keeps what is in there"
        )
    tags = {name.lower() for name in set(names)}  # what is not among them is not looked for
    if not tags.isdisjoint(("math", "script")) or "katex" in html:
        _take_formulas(body, prepared)
    _remove_counters_and_controls(body, html, tags)
    if "pre" in tags:
        _take_code_blocks(body, prepared, tags)
    if "code" in tags and ("`" in html or "&" in html):
        _take_code_spans(body, prepared)
    if not tags.isdisjoint(("a", "img")):
        _mend_links(body)
    if not tags.isdisjoint(("ul", "ol")):
        _mend_lists(body, html)
    _mend_breaks(body, html, tags, prepared)
    if not tags.isdisjoint(("li", "blockquote")) and not tags.isdisjoint(SET_APART):
        _take_nested_blocks(body, prepared)
    prepared.html = _mend_text(body.html or "", prepared)
    return prepared


def _is_deeper(body: Any, max_depth: int) -> bool:
    """True if an element has that many others around it, the body not counted."""
    node, depth = body.child, 1
    while depth <= max_depth:
        if node is None:
            return False
        if node.child is not None:
            node, depth = node.child, depth + 1
            continue
        while node.next is None:
            node, depth = node.parent, depth - 1
            if depth == 0:
                return False
        node = node.next
    return True


def _free_marks(html: str) -> Marks:
    """Private-use characters that are nowhere in the turn, as they are or by their number."""
    text = entities.unescape(html) if "&#" in html else html
    if text.isascii() or _PRIVATE_USE.search(text) is None:
        return FIRST_MARKS
    free = [char for char in map(chr, PRIVATE_USE) if char not in text][: len(Marks._fields)]
    if len(free) < len(Marks._fields):
        raise InvalidRequest("this turn uses every private-use character: none is left to stand for its code")
    return Marks(*free)


def _take(node: Any, piece: str, prepared: Prepared, mark: str) -> None:
    """Put a token in the place of a node; `finish` puts the piece in the place of the token."""
    if "|" in piece and _within(node, ("td", "th")):
        piece = piece.replace("|", r"\|")
    node.replace_with(f"{mark}{len(prepared.pieces)}{prepared.marks.end}")
    prepared.pieces.append(piece)


def _replace(nodes: list[Any], text: str) -> None:
    for node in nodes:
        node.replace_with(text)


def _within(node: Any, tags: tuple[str, ...]) -> bool:
    while node is not None:
        if node.tag in tags:
            return True
        node = node.parent
    return False


# --- formulas -------------------------------------------------------------------------------------------------------


def _take_formulas(body: Any, prepared: Prepared) -> None:
    for node in body.css("span.katex-display"):
        _take_formula(node, prepared, display=True)
    for node in body.css('script[type^="math/tex"]'):
        tex = node.text() if node.parent is not None else ""
        _take_tex(node, tex, prepared, display="mode=display" in (node.attributes.get("type") or ""))
    for node in body.css("span.katex, math"):
        if node.parent is not None and _attached(node):
            _take_formula(node, prepared, display=node.attributes.get("display") == "block")


def _attached(node: Any) -> bool:
    """False for what was within a node that has been taken out already."""
    return _within(node, ("body",))


def _take_formula(node: Any, prepared: Prepared, *, display: bool) -> None:
    annotation = node.css_first('annotation[encoding="application/x-tex"]')
    if annotation is not None:
        _take_tex(node, annotation.text(), prepared, display=display)


def _take_tex(node: Any, tex: str, prepared: Prepared, *, display: bool) -> None:
    tex = _BLANK_LINES.sub("\n", tex.strip())
    if not tex:
        node.decompose()
    elif display and not _within(node, HEADINGS_AND_CELLS):
        _take(node, f"$${tex}$$", prepared, prepared.marks.block)
    else:
        dollars = "$$" if display else "$"
        _take(node, f"{dollars}{tex}{dollars}".replace("\n", " "), prepared, prepared.marks.inline)


# --- the page around the answer -------------------------------------------------------------------------------------


def _remove_counters_and_controls(body: Any, html: str, tags: set[str]) -> None:
    counters = _counters(body) if MAY_COUNT.search(html) else []
    first = _counter_in_front(body, counters)
    for node in [*filter(_beside_buttons, counters), *first]:
        node.decompose()
    for tag in UNWANTED:
        if tag in tags:
            _remove(body.css(tag))
    if PILL in html:
        _remove(body.css(f'[data-testid="{PILL}"]'))
    if "hidden" in html or "display:" in html:
        _remove(body.css(HIDDEN))


def _remove(nodes: list[Any]) -> None:
    for node in nodes:
        is_task = node.tag == "input" and node.attributes.get("type") == "checkbox" and _within(node, ("li",))
        if not is_task and _attached(node):
            node.decompose()


def _counters(body: Any) -> list[Any]:
    return [node for node in body.css("p, div, span") if _is_counter(node.text())]


def _is_counter(text: str) -> bool:
    match = _COUNTER.fullmatch(text) if len(text) < 32 else None
    return match is not None and 1 <= int(match[1]) <= int(match[2]) >= 2


def _beside_buttons(node: Any) -> bool:
    """True if the elements beside the node, one or two, are buttons: those that turn to another answer."""
    beside = [
        element.tag for element in (_element(node.prev, "prev"), _element(node.next, "next")) if element is not None
    ]
    return bool(beside) and set(beside) == {"button"} and not _within(node, ("li", "p", "td", "th"))


def _counter_in_front(body: Any, counters: list[Any]) -> list[Any]:
    """The first block of the turn, if it is the only counter in there. What counts to less than its number is a
    fraction in a `p` or `div` as any other, but not in front of ShareGPT's answer."""
    first = _element(body.child, "next")
    if first is None or first.tag not in ("p", "div") or not _is_counter(first.text()):
        return []
    after = _element(first.next, "next")
    if after is None or after.tag in ("-text", "button") or len(counters) > len(_counters(first)):
        return []
    return [first] if _counts_to_its_number(first.text()) or "markdown" in _classes(after) else []


def _counts_to_its_number(text: str) -> bool:
    number, total = text.split("/")
    return int(number) == int(total)


def _classes(node: Any) -> list[str]:
    return (node.attributes.get("class") or "").split()


def _element(node: Any, direction: str) -> Any:
    """The node, or the nearest in a direction, that is neither white space nor a comment."""
    while (
        node is not None and node.tag in ("-text", "-comment") and (node.tag == "-comment" or not node.text().strip())
    ):
        node = getattr(node, direction)
    return node


# --- code -----------------------------------------------------------------------------------------------------------


def _take_code_blocks(body: Any, prepared: Prepared, tags: set[str]) -> None:
    for pre in body.css("pre"):
        if not _attached(pre):
            continue  # a pre within a pre
        if "br" in tags:
            _replace(pre.css("br"), "\n")
        text, language = _read_block(pre)
        text = text.removesuffix("\n")
        if _within(pre, HEADINGS_AND_CELLS):
            _take(pre, _code_span(text), prepared, prepared.marks.inline)
        else:
            _take(pre, fenced(text, language), prepared, prepared.marks.block)


def _read_block(pre: Any) -> tuple[str, str]:
    """The code and its language. What is in a `pre` but in no `code` is the header, if it stands where headers do."""
    codes = [code for code in pre.css("code") if not _within(code.parent, ("code",))]
    language = _language_of_classes([*codes, pre, pre.parent])
    if not codes:
        return pre.text(), language
    text, whole = "".join(code.text() for code in codes), pre.text()
    if len(text) == len(whole):
        return text, language
    header = whole[: -len(text)] if text and whole.endswith(text) else ""
    if codes[0].parent.tag == "div" or header.rstrip().endswith(_COPY_LABEL) or _is_language(header):
        return text, language or _language_of_header(header)
    return (text if whole.strip() == text.strip() else whole), language


def _is_language(header: str) -> bool:
    """True for a language that stands against the code or on a line of its own: `python script.py` is a command."""
    return header.strip().lower() in _HEADER_LANGUAGES and not header.endswith((" ", "\t"))


def _language_of_classes(nodes: list[Any]) -> str:
    for node in nodes:
        classes = (node.attributes.get("class") or "").split() if node is not None else []
        names = [match[1] for name in classes if (match := _LANGUAGE_CLASS.fullmatch(name))]
        if any(name in _HIGHLIGHTERS for name in classes):
            names += [name for name in classes if name not in _HIGHLIGHTERS and _LANGUAGE_NAME.fullmatch(name)]
        if names:
            return "" if names[0].lower() in NO_LANGUAGE else names[0]
    return ""


def _language_of_header(header: str) -> str:
    """The header says the language and nothing else, once its button is gone; `Shell Session` is `shell-session`."""
    name = header.replace(_COPY_LABEL, "").strip().lower()
    return name.replace(" ", "-") if _LANGUAGE_NAME.fullmatch(name) and name not in NO_LANGUAGE else ""


def fenced(text: str, language: str) -> str:
    """A code block; the fence is longer than any run of backticks in the code."""
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}{language}\n{text}\n{fence}"


def _take_code_spans(body: Any, prepared: Prepared) -> None:
    """Code spans with a backtick in them: the one thing about spans in which converters differ."""
    for code in body.css("code"):
        text = code.text()
        if "`" in text and _attached(code):
            _take(code, _code_span(text), prepared, prepared.marks.inline)


def _code_span(text: str) -> str:
    text = " ".join(text.split())
    delimiter = "`" * (1 + _longest_run(text))
    padding = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{delimiter}{padding}{text}{padding}{delimiter}" if text else ""


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)


# --- links and text -------------------------------------------------------------------------------------------------


def _mend_links(body: Any) -> None:
    for node in body.css("a[href], img"):
        attribute = "src" if node.tag == "img" else "href"
        url = node.attributes.get(attribute) or ""
        if node.tag == "a" and not node.text().strip() and node.css_first("img") is None:
            node.decompose()
        elif not url or not _is_safe(url):
            _leave_only_text(node)
        elif _URL_ESCAPED.search(url) or "(" in url or ")" in url:
            node.attrs[attribute] = _as_destination(url.strip())


def _is_safe(url: str) -> bool:
    match = _SCHEME.match(_URL_JUNK.sub("", url))  # browsers skip these characters, and so would a reader be tricked
    return match is None or match[1].lower() in SAFE_SCHEMES


def _leave_only_text(node: Any) -> None:
    if node.tag == "img":
        node.replace_with(node.attributes.get("alt") or "")
    else:
        del node.attrs["href"]


def _as_destination(url: str) -> str:
    """What a markdown link can hold without brackets around it."""
    url = _URL_ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", url)
    depth = 0
    for char in url:
        depth += (char == "(") - (char == ")")
        if depth < 0:
            break
    return url if depth == 0 else url.replace("(", "%28").replace(")", "%29")


# --- lists ----------------------------------------------------------------------------------------------------------


def _mend_lists(body: Any, html: str) -> None:
    for inner in reversed(
        body.css("ul > ul, ul > ol, ol > ul, ol > ol")
    ):  # the innermost first: a list moves as a copy
        item = _element(inner.prev, "prev")
        if item is not None and item.tag == "li":
            item.insert_child(inner)
            inner.decompose()
    if "start" in html:
        for numbered in body.css("ol[start]"):
            if not _START.fullmatch(numbered.attributes.get("start") or ""):
                del numbered.attrs["start"]


def _mend_breaks(body: Any, html: str, tags: set[str], prepared: Prepared) -> None:
    """A cell and a heading are one line. Text that a style sheet showed with its lines keeps them."""
    if "br" in tags:
        _replace(body.css(", ".join(f"{tag} br" for tag in HEADINGS_AND_CELLS)), " ")
    if "whitespace-pre-wrap" in html:
        for node in body.css(".whitespace-pre-wrap"):
            _take_text(node, prepared)


def _take_text(node: Any, prepared: Prepared) -> None:
    """Text that a style sheet showed with its white space, if it is nothing but text: code that somebody pasted."""
    if any(child.tag != "-text" for child in node.iter(include_text=True)) or _within(node, HEADINGS_AND_CELLS):
        return
    text = node.text()
    if text.strip() and prepared.marks.block not in text:
        _take(node, text.strip("\n").rstrip(), prepared, prepared.marks.block)


def _take_nested_blocks(body: Any, prepared: Prepared) -> None:
    """Headings and tables in list items and quotes, which only we set apart and indent as their text."""
    for node in body.css(NESTED_BLOCKS):
        if _attached(node) and not _within(node.parent, HEADINGS_AND_CELLS):
            prepared.nested[len(prepared.pieces)] = _mend_text(node.html, prepared)
            _take(node, "", prepared, prepared.marks.block)


def _mend_text(html: str, prepared: Prepared) -> str:
    """The serialised tree, in which text holds no `<` and no `>`, with what can be told by tags alone put right."""
    marks = prepared.marks
    if "<br>" in html:
        html = _BREAKS.sub(marks.paragraph, _EDGE_BREAKS.sub("", html))
    html = _BLANK_LINES.sub("\n", html.replace("&nbsp;", " "))
    html = _LIKE_MARKUP.sub(rf">\1{marks.guard}", html).replace("\\", "\\" + marks.guard)
    if ">\n" in html:
        html = _NEWLINE_AFTER_INLINE.sub(rf"\1{marks.guard}\n{marks.guard}", html)
    if prepared.pieces:
        html = re.sub(f"{marks.block}\\d+{marks.end}", r"<p>\g<0></p>", html)
    if "<blockquote>" in html or "<hr>" in html:
        html = _AFTER_LIST_OR_QUOTE.sub(rf"\1<p>{marks.apart}</p>", html)
        html = _BEFORE_QUOTE_OR_RULE.sub(rf"\1<p>{marks.apart}</p>", html)
    return html
