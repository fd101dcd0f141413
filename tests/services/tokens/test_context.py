"""Of a conversation that is too long, the system message and the newest whole rounds are read."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tokens.context import newest_rounds, prompt_room
from services.wire.messages import Message

SYSTEM = Message("system", "be kind")


def rounds(number: int) -> list[Message]:
    pairs = [(Message("user", f"q{n}"), Message("assistant", f"a{n}")) for n in range(number)]
    return [message for pair in pairs for message in pair]


def read(messages: Sequence[Message], number: int) -> list[str]:
    return [message.content for message in newest_rounds(messages, lambda kept: len(kept) <= number)]


QUESTION = Message("user", "now?")


def test_what_fits_is_read_whole() -> None:
    assert read([SYSTEM, *rounds(2), QUESTION], 6) == ["be kind", "q0", "a0", "q1", "a1", "now?"]


def test_the_oldest_rounds_go_first_and_a_question_never_without_its_answer() -> None:
    assert read([SYSTEM, *rounds(3), QUESTION], 5) == ["be kind", "q2", "a2", "now?"]


def test_the_last_question_stays_even_if_it_does_not_fit() -> None:
    assert read([SYSTEM, *rounds(3), QUESTION], 1) == ["be kind", "now?"]


def test_questions_without_an_answer_between_them_are_one_round() -> None:
    assert read([Message("user", "one"), Message("user", "two"), Message("assistant", "both"), QUESTION], 3) == ["now?"]


def test_a_system_message_before_a_question_belongs_to_its_round() -> None:
    later = [Message("system", "s1"), Message("user", "q1"), Message("assistant", "a1"), Message("system", "s2")]
    assert read([*rounds(1), *later, QUESTION], 2) == ["s2", "now?"]
    assert read([*rounds(1), *later, QUESTION], 6) == ["s1", "q1", "a1", "s2", "now?"]


def test_a_greeting_of_the_assistant_is_a_round_of_its_own() -> None:
    assert read([SYSTEM, Message("assistant", "hello"), *rounds(1), QUESTION], 4) == ["be kind", "q0", "a0", "now?"]


@given(st.integers(0, 12), st.integers(0, 30), st.booleans())
def test_no_further_round_would_have_fitted(number: int, most: int, system: bool) -> None:
    whole = [*([SYSTEM] if system else []), *rounds(number), QUESTION]
    kept = read(whole, most)
    assert len(kept) <= most or len(kept) == 1 + system
    assert len(kept) == len(whole) or len(kept) + 2 > most
    assert kept == [message.content for message in whole[:system] + whole[len(whole) - len(kept) + system :]]


@pytest.mark.parametrize(("asked", "room"), [(512, 7_680), (100, 8_092), (8_000, 6_144)])
def test_the_answer_gets_what_was_asked_for_up_to_a_quarter_of_the_context(asked: int, room: int) -> None:
    assert prompt_room(8_192, asked) == room
