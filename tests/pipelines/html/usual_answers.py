"""A seeded generator of answers as chat pages have them, with text that looks like markup. Used by `test_usual.py`."""

import random
from collections.abc import Callable

FRAME = '<div class="markdown prose w-full break-words dark:prose-invert dark">{}</div>'
CODE = (
    '<pre><div class="bg-black rounded-md mb-4"><div class="flex items-center"><span>{0}</span><button class="flex">'
    '<svg stroke="currentColor"><path d="M16 4"></path></svg>Copy code</button></div><div class="p-4"><code '
    'class="!whitespace-pre hljs language-{0}">{1}</code></div></div></pre>'
)
TEXT = (
    "a word 1. 2) - # ## * + = == ~ | > ` _ __ __init__ ** *x* [x] ] ![y] [ ( ) \\ \\n \\* 2 / 3 1984. &amp; "
    "&lt; &gt; &quot; &#39; &amp;lt; &copy; & 漢字 ñ “q” — $x$ $ ``` ~~~ www.a.example http://a.example/x_y :-) "
    ". , ! : \ufe0f \u200d \u0301 \u00ad \ufeff \ufffd \ufdd0 \U0001f600 \u200b \u2060 \ue000 a.b@c.example "
    "--- *** ___"
)
PIECES = [*TEXT.split(" "), " ", " ", " ", "some words", "The end", "\xa0", "\u3000", "\n"]
URLS = (
    "https://a.example/",
    "https://a.example/b?c=d&amp;e=f_g",
    "http://a.example/*x_y~",
    "https://a.example/#a[b]",
    "https://a.example/straße/漢字",
)
# fmt: off
CODE_PIECES = (
    "x = 1", "\n", "\n\n", "  ", "\t", "&lt;b&gt;", "&amp;nbsp;", "```", "````", "|", "- a", "# b", "1. c", "> d", " ",
    '<span class="hljs-string">s</span>', "\x0b", "\ue000", "\xa0", "\u2028", "\r",
)
# fmt: on
MAX_DEPTH = 4


def answer(seed: int) -> str:
    writer = Writer(random.Random(seed))
    blocks = writer.some(1, 4, writer.block)
    return FRAME.format(blocks) if writer.random.random() < 0.8 else blocks


class Writer:
    """Writes blocks. `depth` counts the lists around one."""

    def __init__(self, generator: random.Random) -> None:
        self.random = generator
        self.depth = 0

    def some(self, fewest: int, most: int, make: Callable[[], str]) -> str:
        return "".join(make() for _ in range(self.random.randint(fewest, most)))

    def block(self) -> str:
        makers = [self.paragraph, self.paragraph, self.code, self.table, self.quote, self.heading]
        containers = [self.listing, self.listing] if self.depth < MAX_DEPTH else []
        return self.random.choice(makers + containers)()

    def line(self) -> str:
        text = self.some(1, 4, self.inline)
        return " ".join(text.split()) if self.random.random() < 0.9 else text

    def inline(self) -> str:
        text = self.some(1, 4, lambda: self.random.choice(PIECES)).replace("<", "&lt;")
        tag = self.random.choice(("", "", "", "strong", "em", "code", "a"))
        if not tag:
            return text
        text = text.strip() if self.random.random() < 0.8 else text
        attributes = f' href="{self.random.choice(URLS)}" target="_new"' if tag == "a" else ""
        return f"<{tag}{attributes}>{text}</{tag}>"

    def paragraph(self) -> str:
        return f"<p>{self.line()}</p>"

    def heading(self) -> str:
        level = self.random.randint(1, 6)
        return f"<h{level}>{self.line()}</h{level}>"

    def quote(self) -> str:
        return f"<blockquote>{self.some(1, 3, self.paragraph)}</blockquote>"

    def code(self) -> str:
        language = self.random.choice(("python", "c++", "x-y", "undefined"))
        return CODE.format(language, self.some(0, 7, lambda: self.random.choice(CODE_PIECES)))

    def table(self) -> str:
        width = self.random.randint(1, 3)
        rows = self.some(0, 3, lambda: self._row("td", width))
        return f"<table><thead>{self._row('th', width)}</thead><tbody>{rows}</tbody></table>"

    def _row(self, kind: str, width: int) -> str:
        return f"<tr>{''.join(f'<{kind}>{self.line()}</{kind}>' for _ in range(width))}</tr>"

    def listing(self) -> str:
        tag, is_loose = self.random.choice(("ul", "ol")), self.random.random() < 0.5
        self.depth += 1
        fewest, most = (10, 12) if self.depth == 1 and self.random.random() < 0.1 else (1, 3)
        items = self.some(fewest, most, self._loose_item if is_loose else self._tight_item)
        self.depth -= 1
        return f"<{tag}>{items}</{tag}>"

    def _loose_item(self) -> str:
        return f"<li>{self.paragraph()}{self.some(0, 2, self.block)}</li>"

    def _tight_item(self) -> str:
        nested = self.listing() if self.depth < MAX_DEPTH and self.random.random() < 0.3 else ""
        return f"<li>{self.line()}{nested}</li>"
