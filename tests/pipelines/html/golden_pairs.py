"""The golden corpus: pairs of HTML and the markdown that is right, written by hand (`golden/*.txt`). Read by the tests.

A pair is `=== name`, the HTML, `==>`, the markdown. `␣` stands for a space at the end of a line.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Pair:
    name: str  # "lists: a nested list"
    html: str
    markdown: str


def pairs() -> list[Pair]:
    """All pairs, in the order of the files."""
    return [pair for path in sorted(FOLDER.glob("*.txt")) for pair in _read(path)]


def _read(path: Path) -> list[Pair]:
    sections = ("\n" + path.read_text("utf-8")).split("\n=== ")[1:]
    return [_pair(path.stem, section) for section in sections]


def _pair(topic: str, section: str) -> Pair:
    name, rest = section.split("\n", 1)
    html, markdown = f"{rest}\n".split("\n==>\n", 1)
    return Pair(f"{topic}: {name}", html, markdown.replace("␣", " ").strip("\n"))
