"""What a question brings along: the rounds that were answered, and as many of them as one request may hold. Pure.

Which of these the model can read is the worker's to say (services/tokens/context.py). `asking.py` calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.conversations.tables import MessageRow
from services.wire.messages import Message
from services.wire.parsing import MAX_MESSAGES

ENVELOPE_BYTES = 1_024  # of a request: id, model, sampling and what surrounds them


@dataclass(frozen=True)
class PromptLimits:
    """Of one question with all that it brings along."""

    characters: int
    bytes: int
    messages: int = MAX_MESSAGES


@dataclass(frozen=True)
class Prompt:
    """The messages for the model, and how many older answered ones had no room."""

    messages: tuple[Message, ...]
    omitted: int

    def encoded(self) -> list[dict[str, Any]]:
        return [message.encoded() for message in self.messages]


def prompt_for(path: Sequence[MessageRow], system: str, limits: PromptLimits) -> Prompt:
    """The prompt of the question at the end of a path from the root.

    A question belongs to it with its answer, or if it is the one that is asked now: a question that failed, was refused
    or was stopped before its first word is never asked again with a later one. A stopped answer counts as far as it
    came, since whoever stopped it has read it and goes on from there.
    """
    head = [Message("system", system)] if system.strip() else []
    said = _said(path)
    sizes = [_size(message) for message in [*head, *said]]
    characters, num_bytes = sum(c for c, _ in sizes), ENVELOPE_BYTES + sum(b for _, b in sizes)
    omitted = 0
    while omitted < len(said) - 1 and (
        characters > limits.characters or num_bytes > limits.bytes or len(head) + len(said) - omitted > limits.messages
    ):
        for its_characters, its_bytes in sizes[len(head) + omitted : len(head) + omitted + 2]:
            characters -= its_characters
            num_bytes -= its_bytes
        omitted += 2
    return Prompt((*head, *said[omitted:]), omitted)


def _said(path: Sequence[MessageRow]) -> list[Message]:
    said: list[Message] = []
    question: MessageRow | None = None
    for row in path:
        if row.role == "user":
            question = row
        elif question is not None and _is_answered(row):
            said += [Message("user", question.content), Message("assistant", row.content, row.reasoning)]
            question = None
    return [*said, Message("user", question.content)] if question is not None else said


def _is_answered(row: MessageRow) -> bool:
    return row.role == "assistant" and row.state in ("finished", "cancelled") and bool(row.content.strip())


def _size(message: Message) -> tuple[int, int]:
    return len(message.text), len(orjson.dumps(message.encoded())) + 1
