"""A seeded generator of markdown in the style that the converters write. Used by the round trip.

What cannot come back is not made: two lists or two quotes in a row, prose that is markup, a line break at the end.
"""

import random
from collections.abc import Callable

TEXT = (
    "model queue token stream snake_case value list server answer C++ a<b x>y R&D über 漢字 2*3*4 50% don't"
    ' "quoted" (aside) e.g. foo/bar key=value $5 a|b #tag @user 3.14 --flag [1]'
)
WORDS = TEXT.split()
LANGUAGES = ("python", "javascript", "c++", "sql", "bash", "html", "markdown", "rust", "json", "")
CODE_LINES = (
    "def f(x):",
    "    return x * 2",
    "",
    "",
    "\tindented by a tab",
    "if (a < b && c > d) {",
    "}",
    "SELECT * FROM t;",
    "# a comment",
    "- not a list",
    "> not a quote",
    "```",
    "````python",
    '<p class="x">&amp;</p>',
    "let s = `a`;",
    "trailing   ",
    "\\section{x} $y$",
    "| a | b |",
    "1. one",
    "Copy code",
    "2 / 2",
)
MAX_DEPTH = 3


def document(seed: int) -> str:
    """One document, without white space at its ends."""
    return Writer(random.Random(seed)).blocks(0, 1, 7)


class Writer:
    """Writes blocks. `depth` counts the lists and quotes around one."""

    def __init__(self, generator: random.Random) -> None:
        self.random = generator

    def blocks(self, depth: int, fewest: int, most: int) -> str:
        """Blocks with an empty line between; no two containers in a row, which would be read as one."""
        makers: list[Callable[[int], str]] = [
            self.paragraph,
            self.paragraph,
            self.code,
            self.heading,
            self.table,
            self.rule,
        ]
        containers: list[Callable[[int], str]] = [self.bullets, self.numbers, self.quote]
        blocks: list[str] = []
        after_container = False
        for _ in range(self.random.randint(fewest, most)):
            choice = makers if after_container or depth >= MAX_DEPTH else makers + containers * 2
            maker = self.random.choice(choice)
            after_container = maker in containers
            blocks.append(maker(depth))
        return "\n\n".join(blocks)

    def paragraph(self, depth: int) -> str:
        lines = [self.sentence() for _ in range(self.random.randint(1, 3))]
        return "".join(line + self.random.choice(("\n", "  \n", "\n")) for line in lines[:-1]) + lines[-1]

    def sentence(self) -> str:
        """Words, of which some are markup; the first is a plain word, so that no line looks like a block."""
        first, *rest = [self.random.choice(WORDS) for _ in range(self.random.randint(3, 9))]
        return " ".join(["The", first.strip("[]"), *map(self.inline, rest)])

    def inline(self, word: str) -> str:
        plain = word.replace("[1]", "one").replace("*", "").replace("_", "").replace('"', "")
        kind = self.random.random()
        if kind < 0.08:
            return f"**{plain} x**"
        if kind < 0.16:
            return f"*x {plain}*".replace("*x --flag*", "*x*")
        if kind < 0.26:
            return self.code_span()
        if kind < 0.32:
            return f"[{plain.replace('|', '')}](https://example.com/a_(b)?c=1&d=2)"
        if kind < 0.34:
            return f'![{plain.replace("|", "")}](x.png "A title")'
        if kind < 0.36:
            return f"~~{plain}~~"
        if kind < 0.39:
            return "***both***" if self.random.random() < 0.5 else "**bold *italic* bold**"
        return word

    def code_span(self) -> str:
        return self.random.choice(("`f_x(*args)`", "``a`b``", "`<b>`", "`a && b`", "`` ` ``", "`\\n`"))

    def heading(self, depth: int) -> str:
        return "#" * self.random.randint(1, 6) + " " + self.sentence()

    def rule(self, depth: int) -> str:
        return "---"

    def code(self, depth: int) -> str:
        lines = [self.random.choice(CODE_LINES) for _ in range(self.random.randint(1, 8))]
        fence = (
            "`````"
            if any("````" in line for line in lines)
            else "````"
            if any("```" in line for line in lines)
            else "```"
        )
        return f"{fence}{self.random.choice(LANGUAGES)}\n" + "\n".join(lines) + f"\n{fence}"

    def table(self, depth: int) -> str:
        num_columns = self.random.randint(1, 4)
        rows = [[self.cell() for _ in range(num_columns)] for _ in range(self.random.randint(1, 4))]
        rows.insert(1, ["---"] * num_columns)
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def cell(self) -> str:
        return self.random.choice(
            ("value", "**bold**", "`code`", "a \\| b", "x_y_z", "12", "[t](u)", "two words", "*i*")
        )

    def bullets(self, depth: int) -> str:
        return self._list(depth, lambda number: "- ")

    def numbers(self, depth: int) -> str:
        start = self.random.choice((1, 1, 1, 3, 9)) if depth == 0 else 1
        return self._list(depth, lambda number: f"{start + number}. ")

    def _list(self, depth: int, marker: Callable[[int], str]) -> str:
        """Tight: items of one line, with a tight list under some. Loose: items of blocks, an empty line between all."""
        loose = self.random.random() < 0.4
        items = []
        for number in range(self.random.randint(2, 4)):
            text = self._loose_item(depth) if loose else self._tight_item(depth)
            items.append(_indented(text, marker(number)))
        return ("\n\n" if loose else "\n").join(items)

    def _tight_item(self, depth: int) -> str:
        text = self.sentence()
        if depth < MAX_DEPTH and self.random.random() < 0.3:
            text += "\n" + Writer(self.random)._tight_list(depth + 1)
        return text

    def _tight_list(self, depth: int) -> str:
        numbered = self.random.random() < 0.5
        texts = [self._tight_item(depth) for _ in range(self.random.randint(1, 3))]
        return "\n".join(_indented(text, f"{n}. " if numbered else "- ") for n, text in enumerate(texts, 1))

    def _loose_item(self, depth: int) -> str:
        rest = self.blocks(depth + 1, 0, 2)
        return f"{self.paragraph(depth)}\n\n{rest}" if rest else self.paragraph(depth)

    def quote(self, depth: int) -> str:
        lines = self.blocks(depth + 1, 1, 3).split("\n")
        return "\n".join(f"> {line}" if line else ">" for line in lines)


def _indented(text: str, marker: str) -> str:
    first, *rest = text.split("\n")
    indent = " " * len(marker)
    return "\n".join([marker + first, *(indent + line if line else "" for line in rest)])
