"""Each rule on the examples on both of its sides."""

import pytest

from pipelines.steps.quality import build, repeated_share
from services.recipe import QualityOptions
from tests.pipelines.steps.local import Ran, answered, talk

DIGITS = build(QualityOptions(max_digit_run=8))
LINES = build(QualityOptions(max_line_repeats=3, max_repeated_share=0))
WORDS = build(QualityOptions(max_repeated_share=0.5))
NUMBERS = build(QualityOptions(list_numbering="reject"))


def test_a_run_of_one_digit_is_measured_exactly() -> None:
    """FastChat's --reduce-rep: nine times in a row, numbers such as 1000000000 included; here the recipe says."""
    assert Ran(DIGITS, answered("so 1000000000")).reason == ("digit_run", "000000000")
    assert Ran(build(QualityOptions(max_digit_run=9)), answered("so 1000000000")).kept
    assert Ran(DIGITS, answered("so 100000000 and 123456789")).kept
    assert Ran(DIGITS, answered("in code `1000000000` and\n```\n99999999999\n```")).kept
    assert Ran(DIGITS, talk("u:1111111111", "a:Stop.")).reason[0] == "digit_run"
    assert Ran(build(QualityOptions()), answered("so 1000000000")).kept


def test_the_same_line_in_a_row_is_repetition() -> None:
    assert Ran(LINES, answered("a\n" + "b\n\n" * 4)).reason == ("repeated_lines", "b")
    assert Ran(LINES, answered("b\n" * 3 + "a\n" + "b\n" * 3)).kept
    assert Ran(LINES, answered("```\n" + "}\n" * 9 + "```")).kept
    assert Ran(LINES, talk("u:" + "log\n" * 9, "a:The log repeats itself.")).kept


def test_an_answer_that_repeats_itself_is_rejected_with_its_share() -> None:
    told = "once upon a time there was a small house at the edge of the wood"
    assert Ran(WORDS, answered(" ".join([told] * 3))).reason == ("repeated_words", "1.00")
    assert Ran(WORDS, answered(told + " and nobody lived there but a cat")).kept
    assert Ran(WORDS, answered("\n\n".join(f"```\n{told}\n```" for _ in range(5)))).kept


def test_the_share_counts_each_word_once() -> None:
    ten = [str(number) for number in range(10)]
    assert repeated_share([*ten, *ten]) == 1
    assert repeated_share([*ten, *"abcdefghijklmnopqrst", *ten]) == 0.5
    assert repeated_share(["a"] * 11) == 1
    assert repeated_share(["a"] * 10) == 0
    assert repeated_share([*ten, "x", *ten[:9], "y"]) == 0


def test_an_answer_has_a_length() -> None:
    assert Ran(build(QualityOptions(min_answer_chars=5)), answered(" Yes ")).reason == ("short_answer", "3 characters")
    assert Ran(build(QualityOptions(min_answer_chars=3)), answered(" Yes ")).kept


WRONG = [
    "1. one\n1. two",
    "1. one\n\n1. two\n\n1. three",
    "1. one\n   continued\n\n   - inner\n\n1. two, 2 of them",
    "- outer\n  1) one\n  1) two",
    "1. one\n\n   ```\n   code\n   ```\n\n1. two",
]
RIGHT = [
    "1. a\n2. b\n\nAnother list:\n\n1. new list\n2. more",
    "1. a\n\nSomething else.\n\n1. new list",
    "1. a\n   1. inner\n2. b\n   1. inner",
    "1. a\n2. b\n1. begins anew",
    "Version 1. is old\n1.5 is new\n1. one",
    "```\n1. one\n1. two\n```",
    "# 1. Part\n1. one\n# 2. Part\n1. one",
    "1.\n1.",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_list_in_which_every_item_is_number_one_is_found(text: str) -> None:
    """FastChat misses it as soon as a digit 2 lies between."""
    assert Ran(NUMBERS, answered(text)).reason[0] == "list_numbering"
    assert Ran(build(QualityOptions()), answered(text)).kept


@pytest.mark.parametrize("text", RIGHT)
def test_two_lists_are_two_lists(text: str) -> None:
    """FastChat takes the second one's first item for the next item of the first."""
    assert Ran(NUMBERS, answered(text)).kept
