"""What is a conversation, and what becomes of everything else."""

import pytest

from pipelines.steps.roles import build
from services.jobs.steps.roles import RolesOptions
from tests.pipelines.steps.local import Ran, assert_sums_match, talk

FORERUNNER = RolesOptions()  # two turns, 16 characters


def ran(*turns: str, options: RolesOptions = FORERUNNER) -> Ran:
    result = Ran(build(options), talk(*turns))
    assert_sums_match(result)
    return result


LONG = "u:a question of some length", "a:an answer of some length"


def test_a_conversation_in_order_is_the_same_object() -> None:
    given = talk("s:be kind", *LONG, *LONG)
    assert Ran(build(FORERUNNER), given).kept == [given]
    assert Ran(build(FORERUNNER), given).kept[0] is given


def test_an_answer_before_the_first_question_is_cut_and_written_down() -> None:
    """FastChat: [gpt, human, gpt] is kept as [human, gpt]."""
    result = ran("a:welcome", *LONG)
    assert [role for role, _ in result.turns[0]] == ["u", "a"]
    assert result.reason == ("leading_assistant", "")
    assert result.lines[0]["turns"] == [0]


def test_a_system_turn_before_it_stays() -> None:
    """FastChat drops a leading system turn and says nothing."""
    result = ran("s:be kind", "a:welcome", *LONG)
    assert [role for role, _ in result.turns[0]] == ["s", "u", "a"]
    assert result.lines[0]["turns"] == [1]


def test_a_question_without_an_answer_is_cut() -> None:
    """FastChat: of [human, gpt, human] the last turn is cut."""
    result = ran(*LONG, "u:and then?")
    assert len(result.turns[0]) == 2
    assert (result.reason, result.lines[0]["turns"]) == (("trailing_user", ""), [2])


def test_two_questions_in_a_row_reject_the_record() -> None:
    """FastChat: [human, human, gpt] is a wrong format."""
    assert ran("u:one question", *LONG).reason == ("not_alternating", "two user turns in a row")


def test_two_questions_in_a_row_can_be_merged_with_a_blank_line() -> None:
    result = ran("u:one", "u:", "u:two", "a:an answer of some length", options=RolesOptions(same_role="merge"))
    assert result.turns == [[("u", "one\n\ntwo"), ("a", "an answer of some length")]]
    assert result.counts.turns_merged == 2
    assert not result.lines


def test_an_unknown_role_is_named() -> None:
    """FastChat calls OpenAI's roles "too short"; the readers map those, and what is left is told by its name."""
    assert ran("tool:{}", *LONG).reason == ("unknown_role", "tool")


def test_pairs_before_an_empty_answer_stay() -> None:
    """FastChat: of [h, g, h, g=""] the first pair is kept."""
    result = ran(*LONG, "u:go on", "a: \n", *LONG)
    assert len(result.turns[0]) == 2
    assert (result.reason, result.lines[0]["turns"]) == (("empty", ""), [2, 3, 4, 5])


@pytest.mark.parametrize("empty", ["", " \n\t", "\u200b", "\x00\u200d \ufeff"])
def test_a_text_that_shows_nothing_is_empty(empty: str) -> None:
    assert ran("u:" + empty, "a:an answer of some length").reason == ("empty", "")


@pytest.mark.parametrize(
    "answer",
    [
        "<think>\nIt has a fraction",
        "<think>\nCompare them.\n</think>\n\n",
        "\n<thinking>Compare them.</thinking>\u200b",
        "Only divisors 1 and 7.\n</think>\n\nYes, 7 is prime.",
    ],
)
def test_reasoning_alone_is_no_answer(answer: str) -> None:
    """Reasoning that was cut off, that nothing follows, or that has no beginning was trained as an answer."""
    assert ran(LONG[0], "a:" + answer).reason == ("no_answer", "")
    result = ran(*LONG, LONG[0], "a:" + answer, *LONG)
    assert len(result.turns[0]) == 2
    assert (result.reason, result.lines[0]["turns"]) == (("no_answer", ""), [2, 3, 4, 5])


@pytest.mark.parametrize(
    "answer",
    [
        "<think>\nCompare them.\n</think>\n\n9.9 is bigger.",
        "A model closes its reasoning with `</think>`.",
        "Write:\n<think>\n…\n</think>\nand then the answer.",
    ],
)
def test_an_answer_with_its_reasoning_or_about_it_stays(answer: str) -> None:
    assert ran(LONG[0], "a:" + answer).lines == []
    assert ran("u:<think> " + answer, LONG[1]).lines == []


def test_two_system_turns_at_the_begin_are_named_as_such() -> None:
    assert ran("s:be kind", "s:be brief", *LONG).reason == ("not_alternating", "two system turns in a row")


def test_a_text_that_begins_with_something_invisible_is_not_empty() -> None:
    """FastChat ends the conversation there, though a byte order mark is all that is wrong."""
    assert ran("u:a question of some length", "a:\ufeffan answer").kept


def test_fewer_than_16_characters_are_too_short() -> None:
    """FastChat: "hi" and "hello" go, 8 and 8 characters stay."""
    assert ran("u:hi", "a:hello").reason == ("too_short", "7 characters")
    assert ran("s:a system turn does not count", "u:hi", "a:hello").reason == ("too_short", "7 characters")
    assert ran("u:12345678", "a:12345678").kept


@pytest.mark.parametrize("turns", [(), ("u:a question of some length",), ("a:one",), ("s:one",), ("a:one", "u:two")])
def test_without_question_and_answer_there_is_no_pair(turns: tuple[str, ...]) -> None:
    assert ran(*turns).reason == ("no_pair", "")


def test_a_system_turn_in_the_middle_is_rejected_or_cut() -> None:
    turns = (*LONG, "s:now be terse", *LONG)
    assert ran(*turns).reason == ("system_not_first", "")
    result = ran(*turns, options=RolesOptions(system="cut"))
    assert len(result.turns[0]) == 4
    assert (result.reason, result.lines[0]["turns"]) == (("system", ""), [2])


def test_an_empty_system_turn_alone_is_cut() -> None:
    result = ran("s: ", *LONG)
    assert (len(result.turns[0]), result.lines[0]["turns"]) == (2, [0])


def test_a_conversation_is_bounded_in_pairs() -> None:
    result = ran(*LONG, *LONG, *LONG, options=RolesOptions(max_turns=5))
    assert len(result.turns[0]) == 4
    assert result.lines[0]["turns"] == [4, 5]
    assert ran(*LONG, options=RolesOptions(min_turns=4)).reason == ("too_few_turns", "2")


def test_what_was_cut_before_the_record_was_rejected_is_counted_once() -> None:
    result = ran("a:welcome", "u:hi", "a:hello", "u:bye")
    assert result.reason == ("too_short", "7 characters")
    assert not result.counts.cut
    assert result.counts.turns_rejected == 4


def test_merged_turns_that_are_cut_are_cut_each() -> None:
    result = ran(*LONG, "u:one", "u:two", options=RolesOptions(same_role="merge"))
    assert result.lines[0]["turns"] == [2, 3]
    assert result.counts.turns_merged == 0
