"""Rounds: an answer with its calls of tools and their results, as one turn of the assistant.

So the steps that judge whose turn it is, or cut a conversation, see a question and what was answered, and never part a
call from its result. A round shows the text of its last answer; of one that only calls, the names of the tools.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipelines.records.conversation import Conversation, FullTurn, Turn


@dataclass(frozen=True, slots=True)
class Round(Turn):
    """What the assistant did after one question. `turns` are never empty."""

    turns: tuple[Turn, ...] = ()


def in_rounds(conversation: Conversation) -> Conversation:
    """The conversation with its rounds as turns. A result to which no call leads stays a turn of its own."""
    return replace(conversation, turns=tuple(_rounds(conversation.turns)), rejected=None)


def without_rounds(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns that the rounds are made of."""
    return tuple(turn for each in turns for turn in turns_of(each))


def turns_of(turn: Turn) -> tuple[Turn, ...]:
    return turn.turns if isinstance(turn, Round) else (turn,)


def _rounds(turns: Sequence[Turn]) -> Iterator[Turn]:
    run: list[Turn] = []
    for turn in turns:
        if run and not _goes_on(run, turn):
            yield _round(run)
            run = []
        if run or (isinstance(turn, FullTurn) and turn.role == "assistant"):
            run.append(turn)
        else:
            yield turn
    if run:
        yield _round(run)


def _goes_on(run: Sequence[Turn], turn: Turn) -> bool:
    """Results follow a call or another result, and the assistant follows results."""
    last = run[-1]
    if turn.role == "tool":
        return last.role == "tool" or (isinstance(last, FullTurn) and bool(last.calls))
    return turn.role == "assistant" and last.role == "tool"


def _round(run: Sequence[Turn]) -> Round:
    last = next(turn for turn in reversed(run) if turn.role == "assistant")
    calls = last.calls if isinstance(last, FullTurn) else ()
    return Round("assistant", last.text or ", ".join(call.name for call in calls), tuple(run))
