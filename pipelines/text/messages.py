"""Turns → messages for a chat template, with reasoning, calls and results. Steps that count tokens call it."""

from collections.abc import Sequence
from typing import Any, cast

from pipelines.records.conversation import FullTurn, Turn
from pipelines.records.rounds import without_rounds
from services.wire.messages import CallMessage, Message, ResultMessage


def messages_of(turns: Sequence[Turn]) -> list[Message]:
    return [_message(turn) for turn in without_rounds(turns)]


def _message(turn: Turn) -> Message:
    role = cast(Any, turn.role)  # the template judges roles
    if not isinstance(turn, FullTurn):
        return Message(role, turn.text)
    if turn.calls:
        return CallMessage(role, turn.text, turn.reasoning, turn.calls)
    if turn.role == "tool":
        return ResultMessage(role, turn.text, turn.reasoning, turn.call, turn.name)
    return Message(role, turn.text, turn.reasoning)
