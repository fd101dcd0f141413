"""Repairs mojibake, surrogates and line ends, removes control characters, and changes nothing else.

Quotes, ligatures, widths and HTML entities stay as they were written. ftfy repairs mojibake, but reads only about
1 MB/s. So the step passes to ftfy only lines in which ftfy's own test for mojibake could succeed; those are rare. Text
that shows mojibake on purpose stays, and so does code.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from pipelines.records.conversation import Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.prose import other_spans
from services.jobs.steps.repair_unicode import RepairUnicodeOptions

_ESCAPES = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b\n]*(?:\x07|\x1b\\\\)"
)  # of terminals: colours, titles
_SURROGATES = re.compile("[\ud800-\udfff]")
# C0 and C1 without tab and newline, and the invisible ones that Unicode itself withdrew; U+FEFF is a byte order mark.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u206a-\u206f\ufeff\ufff9-\ufffb]")
_BREAKS = str.maketrans({**dict.fromkeys("\x0b\x0c", "\n"), **dict.fromkeys("\x1c\x1d\x1e\x1f", " ")})  # part words
_ASCII_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")

# Every pattern of ftfy's test needs one character of _ALONE, or two of _ANY in a row that are not both Greek or
# Cyrillic letters. A test compares with ftfy.
_ANY = "\x80-\u04ff\u2000-\u25ff\uf8ff\ufb01\ufb02\ufffd"
_LETTERS = "\u0386-\u03ce\u0410-\u044f"
_NOT_LETTERS = "\x80-\u0385\u03cf-\u040f\u0450-\u04ff\u2000-\u25ff\uf8ff\ufb01\ufb02\ufffd"
_ALONE = "\x80-\x9fŒœÃÂЂ"
MAY_BE_MOJIBAKE = re.compile(
    f"[{_ANY}](?:(?<=[{_ALONE}])|(?<=[{_NOT_LETTERS}])[{_ANY}]|(?<=[{_LETTERS}])[{_NOT_LETTERS}])"
)

_LINE = re.compile("[^\n]+")
_ABOUT = re.compile("mojibake|latin-?1|cp1252|windows-1252|utf-?8", re.IGNORECASE)
ABOUT_CHARS = 300  # so near to a line, such a word says that mojibake is what the text is about
_LETTER_ALONE = re.compile("((?<![a-z\xdf-\xff])[\xc3\xc2](?= ))")  # Ã and Â as such: "A letra Ã é", "MANHÃ e"

Repair = Callable[[str], str]


def build(options: RepairUnicodeOptions) -> Step:
    repairs = dict(_REPAIRS)
    if options.normalization == "NFC":
        repairs["normalization"] = lambda text: unicodedata.normalize("NFC", text)

    def repaired(turn: Turn, ledger: Ledger) -> Turn:
        text = turn.text
        if text.isascii() and not _ASCII_CONTROLS.search(text):
            return turn
        for kind, repair in repairs.items():
            if (new := repair(text)) != text:
                ledger.changed(kind)
                text = new
        return turn if text is turn.text else Turn(turn.role, text)

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            turns = [repaired(turn, ledger) for turn in conversation.turns]
            changed = any(new is not old for new, old in zip(turns, conversation.turns, strict=True))
            yield conversation.with_turns(turns) if changed else conversation

    return step


def _with_plain_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _without_surrogates(text: str) -> str:
    """Pairs become the character that they spell; a single one becomes U+FFFD."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _without_mojibake(text: str) -> str:
    if not MAY_BE_MOJIBAKE.search(text):
        return text
    pieces, done = [], 0
    for start, end in _prose_lines(text):
        if MAY_BE_MOJIBAKE.search(text, start, end) and not _is_about_mojibake(text, start, end):
            pieces += [text[done:start], _repaired_line(text[start:end])]
            done = end
    return "".join([*pieces, text[done:]])


def _prose_lines(text: str) -> Iterator[tuple[int, int]]:
    done = 0
    for start, end in (*other_spans(text), (len(text), len(text))):
        yield from (line.span() for line in _LINE.finditer(text, done, start))
        done = end


def _is_about_mojibake(text: str, start: int, end: int) -> bool:
    return _ABOUT.search(text, max(0, start - ABOUT_CHARS), end + ABOUT_CHARS) is not None


def _repaired_line(line: str) -> str:
    """The line as it is, if a letter that the repair would bring back is there already: `Ã© instead of é`."""
    fix = _mojibake_fixer()
    repaired = "".join(map(fix, _LETTER_ALONE.split(line)))
    if repaired == line:
        return line
    letters = {char for char in line if char > "\x7f" and char.isalpha()}
    return line if any(repaired.count(char) > line.count(char) for char in letters) else repaired


@cache
def _mojibake_fixer() -> Repair:
    import ftfy

    config = ftfy.TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        normalization=None,
    )
    return lambda line: ftfy.fix_encoding(line, config)


def _without_escapes(text: str) -> str:
    return _ESCAPES.sub("", text) if "\x1b" in text else text


def _without_controls(text: str) -> str:
    return _CONTROLS.sub("", text.translate(_BREAKS))


_REPAIRS: dict[str, Repair] = {  # in this order, each counted under its name
    "line_ends": _with_plain_line_ends,
    "surrogates": _without_surrogates,
    "mojibake": _without_mojibake,
    "terminal_escapes": _without_escapes,
    "control_characters": _without_controls,
}
