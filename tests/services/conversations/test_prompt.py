"""What a question brings along of its conversation."""

from services.conversations.prompt import PromptLimits, prompt_for
from services.conversations.tables import MessageRow
from services.wire.messages import Message

LIMITS = PromptLimits(characters=1_000, bytes=10_000)


def path(*said: tuple[str, str, str] | tuple[str, str], now: str = "") -> list[MessageRow]:
    """The rounds (question, answer, state), then the question that is asked now."""
    rows = []
    for question, answer, *state in said:
        rows.append(MessageRow(role="user", content=question, reasoning="", state="finished"))
        its_state = state[0] if state else "finished"
        rows.append(MessageRow(role="assistant", content=answer, reasoning="", state=its_state))
    return [*rows, MessageRow(role="user", content=now, reasoning="", state="finished")] if now else rows


def contents(rows: list[MessageRow], limits: PromptLimits = LIMITS, system: str = "") -> list[str]:
    return [message.content for message in prompt_for(rows, system, limits).messages]


def test_the_system_comes_first_then_the_answered_rounds_then_the_question() -> None:
    assert prompt_for(path(("one", "1"), now="two"), "be kind", LIMITS).messages == (
        Message("system", "be kind"),
        Message("user", "one"),
        Message("assistant", "1"),
        Message("user", "two"),
    )


def test_a_question_without_an_answer_is_not_part_of_a_later_one() -> None:
    rows = path(
        ("failed", "half", "failed"),
        ("stopped", "", "cancelled"),
        ("silence", " ", "finished"),
        ("open", "so far", "open"),
        ("answered", "yes"),
        now="now?",
    )
    assert contents(rows) == ["answered", "yes", "now?"]


def test_no_more_messages_are_sent_than_the_server_takes() -> None:
    rows = path(("one", "1"), ("two", "2"), now="now?")
    assert contents(rows, PromptLimits(1_000, 10_000, 5)) == ["one", "1", "two", "2", "now?"]
    assert contents(rows, PromptLimits(1_000, 10_000, 4)) == ["two", "2", "now?"]


def test_a_stopped_answer_counts_as_far_as_it_came() -> None:
    assert contents(path(("sea?", "The sea", "cancelled"), now="go on")) == ["sea?", "The sea", "go on"]


def test_of_a_conversation_longer_than_one_request_the_newest_rounds_are_sent() -> None:
    rows = path(("one", "1" * 600), ("two", "2" * 300), ("three", "3" * 300), now="now?")
    prompt = prompt_for(rows, "be kind", LIMITS)
    said = [message.content for message in prompt.messages]
    assert said == ["be kind", "two", "2" * 300, "three", "3" * 300, "now?"]
    assert prompt.omitted == 2


def test_bytes_are_counted_as_they_are_sent_escaped_and_as_utf8() -> None:
    escaped = path(("one", "\x01" * 300), now="now?")
    assert contents(escaped, PromptLimits(1_000, 3_000)) == ["one", "\x01" * 300, "now?"]
    assert contents(escaped, PromptLimits(1_000, 2_800)) == ["now?"]
    assert contents(path(("one", "汉" * 600), now="now?"), PromptLimits(1_000, 2_800)) == ["now?"]


def test_the_reasoning_goes_along_beside_its_answer_and_counts() -> None:
    rows = path(("one", "1"), now="two")
    rows[1].reasoning = "x" * 50
    assert prompt_for(rows, "", LIMITS).messages[1] == Message("assistant", "1", "x" * 50)
    assert prompt_for(rows, "", PromptLimits(40, 10_000)).omitted == 2
