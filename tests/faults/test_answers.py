"""The judge of journals must see each kind of damage."""

from dataclasses import replace

import pytest

from services.wire.messages import Event
from tests.contracts.protocol_model import ModelAnswer, token
from tests.faults.answers import problems

RID = "r1"


def journal(salts: list[int]) -> list[Event]:
    """An answer of one token per entry, each drawn by the worker with this salt."""
    answer, prefix = ModelAnswer(), list(RID.encode())
    events = [Event("begin", "a")]
    for position, salt in enumerate(salts):
        answer.push(token(prefix, salt))
        prefix.append(answer.token_ids[-1])
        ids, toff, text = answer.slice_from(position)
        events.append(Event("tokens", "a", position, toff, ids, text))
    toff = events[-1].toff + len(events[-1].text)
    return [*events, Event("finished", "a", len(salts), toff, text=answer.finish(), code="length")]


def test_an_answer_that_several_workers_continued_is_sound() -> None:
    assert problems(RID, journal([1, 1, 2, 2, 3])) == []


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda events: [*events[:2], *events[3:]], "the journal stands at"),
        (lambda events: [*events[:2], *events[1:]], "the journal stands at"),
        (lambda events: [*events[:3], *journal([9, 9, 9, 9])[3:]], "does not continue"),
        (lambda events: [*events[:2], replace(events[2], text="x" + events[2].text), *events[3:]], "is not that"),
        (lambda events: events[:-1], "0 ends"),
        (lambda events: [*events, replace(events[-1], toff=events[-1].toff + 1)], "2 ends"),
        (lambda events: [*events, Event("begin", "b", events[-1].off, events[-1].toff + 1)], "after the end"),
    ],
)
def test_damage_is_seen(damage, what: str) -> None:
    assert any(what in problem for problem in problems(RID, damage(journal([1, 1, 1, 1]))))
