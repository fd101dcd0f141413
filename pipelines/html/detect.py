"""Decides whether an assistant turn is an HTML export or markdown that mentions tags, for the step `html_to_markdown`.

If HTML is taken for text, an answer stays HTML. If text is taken for HTML, `vector<int>` loses its `<int>`. The second
error destroys text, so a turn in doubt counts as text. A turn is an export if it begins with a tag and one of its
elements has the class of ShareGPT's answers (`markdown prose`), or if all of this holds:

1. It begins with a whole tag of a block (`<p>`, `<div class="…">`, `<pre>`, `<h2>`, `<ul>`, `<table>`, …), and that
   element is closed somewhere. Prose that begins with a tag (`<div> elements are boxes`) closes none.
2. It has no element that pages have and answers don't (`html`, `head`, `form`, `nav`, …), and no line that begins with
   white space and a tag, except within `pre`: that is source that somebody asked for. Exports escape what they show.
3. No line outside of `pre` opens a fence.
4. No block has what an author gives it and an export doesn't: `id`, `style`, `align`, a class that is none of those
   below, and no element a template's `v-if`, `@click` or `:href`. Who asked for a page gets `<div class="card">`.
5. No text stands beside the blocks: `<p> and </p> enclose a paragraph` and `<img …>` above a README do that.

Blocks without attributes are always in doubt: `<h1>Hello</h1>\n<p>World</p>` may be a page that somebody asked for, and
`<p>a</p>\n\n<p>b</p>` is how exports look. They are converted: a record of nothing but source is the rarer one.
"""

import re

BLOCKS = "p|div|pre|h[1-6]|ul|ol|table|blockquote|section|article|dl|figure"
PAGE = "html|head|body|meta|link|base|form|label|fieldset|nav|header|footer|main|details|!doctype"
# What the classes of exported blocks begin with: of ShareGPT's style sheet, of code, formulas and tasks.
CLASSES = (
    "markdown|prose|result-|group|flex|items-|self-|relative|bg-|text-(?:xs|gray-)|min-h-|w-full|p-4|mb-4|overflow-|"
    "break-words|whitespace-|!whitespace-|hljs|highlight|sourceCode|language-|lang-|katex|math|contains-task-list|task-list"
)

_ANSWER = re.compile(r"""<div\b[^<>]*\bclass\s*=\s*["'][^"'<>]*\bmarkdown prose\b""")
_FIRST = re.compile(rf"<({BLOCKS})(?:\s[^<>]*)?>", re.IGNORECASE)
_SOURCE = re.compile(rf"<(?:{PAGE})\b|^[ \t]+</?[a-z]|^ {{0,3}}(?:```|~~~)", re.IGNORECASE | re.MULTILINE)
_PRE = re.compile(r"<pre\b.*?(?:</pre\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_BLOCK = re.compile(rf"<(?:{BLOCKS}|li)(\s[^<>]*)>", re.IGNORECASE)
_AUTHORED = re.compile(r"""\s(?:id|style|align|class)\s*=\s*["']?[^"'\s]""", re.IGNORECASE)
_EXPORTED = re.compile(rf"""\sclass\s*=\s*["']?(?:[^"']*\s)?(?:{CLASSES})""", re.IGNORECASE)
_TEMPLATE = re.compile(r"""<[a-z][^<>]*\s(?:v-[a-z]|[@:][a-z])[^\s<>="']*\s*=""", re.IGNORECASE)


def looks_like_html(text: str) -> bool:
    """True if the turn is to be converted. No rule is about the words of a turn."""
    text = text.strip()
    if text[:1] != "<":
        return False
    if _ANSWER.search(text) is not None:
        return True
    first = _FIRST.match(text)
    if first is None or f"</{first[1].lower()}" not in text.lower():
        return False
    outside = _PRE.sub("", text)
    return _SOURCE.search(outside) is None and not _is_authored(outside) and not _has_text_beside_blocks(text)


def _is_authored(text: str) -> bool:
    attributes = _BLOCK.findall(text)
    return _TEMPLATE.search(text) is not None or any(
        _AUTHORED.search(given) is not None and _EXPORTED.search(given) is None for given in attributes
    )


def _has_text_beside_blocks(text: str) -> bool:
    from selectolax.lexbor import LexborHTMLParser  # here: who only names a step should not load a parser

    body = LexborHTMLParser(text).body
    return body is not None and any(
        bool(node.text().strip()) for node in body.iter(include_text=True) if node.tag == "-text"
    )
