"""The Markdown display: what is printed for good is never wrong later, and nothing of the text is lost."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from services.command.plain import without_controls
from services.command.talk.markdown import AnswerMarkdown, Lines, MarkdownDisplay, parser, settled_blocks

LINES = [
    "",
    "para one",
    "- item",
    "  more",
    "1. one",
    "2. two",
    "```py",
    "```",
    "    code",
    "# head",
    "---",
    "a | b",
    "--- | ---",
    "> quote",
    "===",
    "<b>",
    "~~~",
    "\tx",
]


def blocks(text: str) -> list[str]:
    lines = text.split("\n")
    spans = [token.map for token in parser().parse(text) if token.level == 0 and token.map]
    return ["\n".join(lines[first:last]).rstrip() for first, last in spans]


@settings(deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=12).map("\n".join), st.integers(0, 200))
def test_settled_blocks_stay_blocks_whatever_follows(text: str, cut: int) -> None:
    settled = settled_blocks(text[:cut])
    rest = text[len("".join(settled)) :]
    assert "".join(settled) + rest == text
    assert [block for part in settled for block in blocks(part)] + blocks(rest) == blocks(text)


def shown(*pieces: str | int, height: int = 24) -> str:
    """What a terminal-less console printed for good after texts, and rewinds given as numbers."""
    console = Console(file=io.StringIO(), width=60, height=height, force_terminal=False)
    with MarkdownDisplay(console) as display:
        for piece in pieces:
            if isinstance(piece, int):
                assert display.rewind(piece)
            else:
                display.text(piece)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_an_answer_in_pieces_is_printed_once() -> None:
    output = shown("Hel", "lo.\n", "\nSecond", " part.\n\n- a\n", "- b\n\nend")
    assert [line.strip() for line in output.splitlines() if line.strip()] == [
        "Hello.",
        "Second part.",
        "• a",
        "• b",
        "end",
    ]


def test_a_rewind_within_the_unfinished_block_leaves_no_trace() -> None:
    assert shown("Hello wrong", 6, "right").split() == ["Hello", "right"]


def test_a_rewind_into_what_was_printed_says_so_and_prints_the_block_anew() -> None:
    output = shown("First.\n\nSecond.\n\nThird.\n\n", 9, "ilver.\n")
    assert output.count("First.") == 1
    assert output.index("Second.") < output.index("Redis lost the answer from here on") < output.index("Silver.")


def test_raw_html_is_shown_as_written() -> None:
    """rich drops HTML blocks, and with them a part of the answer."""
    assert "<div>x</div>" in shown("<div>x</div>\n\nand <b>this</b>\n")
    assert "<b>this</b>" in shown("and <b>this</b>\n")


@pytest.mark.parametrize("text", ["\x1b[2Jhi", "\x9b2Jhi", "h\ri", "\x07hi"])
def test_control_characters_never_reach_the_terminal(text: str) -> None:
    assert not {"\x1b", "\x9b", "\r", "\x07"} & set(shown(text))
    assert without_controls("a\tb\nc") == "a\tb\nc"


def test_a_block_higher_than_the_screen_shows_its_tail() -> None:
    console = Console(file=io.StringIO(), width=60, height=10)
    lines = console.render_lines(Lines(AnswerMarkdown("\n\n".join(str(n) for n in range(50))), tail=True))
    text = ["".join(segment.text for segment in line).strip() for line in lines]
    assert "49" in text and "0" not in text
    assert len(lines) <= 10


def drawn(*, reasoning: bool) -> str:
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    with MarkdownDisplay(console, reasoning=reasoning) as display:
        for text in ("2 and\n2, ", "so \x1b[2J4."):
            display.reasoning(text)
        display.text("It is **4**.")
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_reasoning_stands_before_the_answer_or_is_left_out() -> None:
    assert [line.strip() for line in drawn(reasoning=True).splitlines() if line.strip()] == [
        "2 and",
        "2, so [2J4.",
        "It is 4.",
    ]
    assert drawn(reasoning=False).strip() == "It is 4."
