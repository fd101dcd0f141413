"""Each rule on the examples on both of its sides."""

import pytest

from pipelines.steps import Step
from pipelines.steps.quality import build, repeated_share
from services.jobs.steps.quality import QualityOptions
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
    assert Ran(WORDS, answered(" ".join([told] * 12))).reason == ("repeated_words", "1.00")
    assert Ran(WORDS, answered(told + " and nobody lived there but a cat")).kept
    assert Ran(WORDS, answered("\n\n".join(f"```\n{told}\n```" for _ in range(12)))).kept


@pytest.mark.parametrize(
    ("step", "answer", "score", "limit"),
    [
        (DIGITS, "so 1000000000000", 12, 8),
        (LINES, "a\n" + "b\n\n" * 7, 7, 3),
        (WORDS, " ".join(["all work and no play makes jack a dull boy and a tired one"] * 12), 1.0, 0.5),
        (build(QualityOptions(min_answer_chars=5)), " Yes ", 3, 5),
    ],
)
def test_a_reject_carries_what_was_measured_and_the_limit(step: Step, answer: str, score: float, limit: float) -> None:
    """A limit is chosen by looking at how far beyond it the rejects are."""
    line = Ran(step, answered(answer)).lines[0]
    assert (line["score"], line["limit"]) == (score, limit)


REFRAIN = "oh the river runs down to the sea and the sea runs back to me, sing it again my love, sing it again"
DAY = "warm up for ten minutes, then three sets of ten squats, three sets of push-ups, and stretch for five minutes"
PARAGRAPH = " ".join(f"word{number}" for number in range(90))
GOOD_REASONS = {
    "song": "\n\n".join(
        f"{verse} {verse}1 {verse}2 went out one morning\n{REFRAIN}" for verse in ("I", "we", "they", "all")
    ),
    "plan": "\n\n".join(f"**Day {day}**\n{DAY}" for day in range(1, 8)),
    "table": "\n".join(["| a | b | c | d | e | f | g | h |"] * 15),
    "json": "\n".join(['{"name": "x", "a": 1, "b": 2, "c": 3, "d": 4, "e": 5}'] * 15),
    "sql": "\n".join(["INSERT INTO users (id, name, age, city) VALUES (1, 'a', 20, 'b');"] * 15),
    "log": "\n".join(["2024-01-01 10:00:00 INFO the server is up and waits for its next request on port 80"] * 15),
    "indented": "\n".join(["    mov a, b ; and so on and so forth until the very end of it"] * 15),
}
LOOPS = ["I am sorry " * 67, "\n\n".join([PARAGRAPH] * 10), "Here is the story. " + "and then he said that " * 60]


@pytest.mark.parametrize("kind", GOOD_REASONS)
def test_what_repeats_itself_for_good_reasons_stays(kind: str) -> None:
    assert len(GOOD_REASONS[kind].split()) >= 100
    assert Ran(WORDS, answered(GOOD_REASONS[kind])).kept


@pytest.mark.parametrize("text", LOOPS)
def test_a_loop_is_found_whether_its_period_is_short_or_long(text: str) -> None:
    assert Ran(WORDS, answered(text)).reason[0] == "repeated_words"


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
