"""Conversations written shortly, and a step run as the engine runs it."""

from collections.abc import Iterable
from typing import Any

from pipelines.records.conversation import Conversation, Source, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step

ROLES = {"s": "system", "u": "user", "a": "assistant"}


def talk(*turns: str, id: str = "c1", **fields: Any) -> Conversation:
    """`talk("u:hi", "a:hello")`; any other role is spelled out."""
    parted = (turn.partition(":") for turn in turns)
    made = tuple(Turn(ROLES.get(role, role), text) for role, _, text in parted)
    return Conversation(id, made, Source("input.json", 1), **fields)


def answered(text: str) -> Conversation:
    return talk("u:a question of some length", "a:" + text)


class Ran:
    """What one step made of conversations: `kept`, `lines` of the reject file, `counts`."""

    def __init__(self, step: Step, *conversations: Conversation) -> None:
        self.lines: list[dict[str, Any]] = []
        ledger = Ledger("step", self.lines.append)
        self.kept = list(step(self._counted(conversations, ledger), ledger))
        self.counts = ledger.counts
        self.counts.records_out = len(self.kept)
        self.counts.turns_out = sum(len(kept.turns) for kept in self.kept)

    @staticmethod
    def _counted(conversations: Iterable[Conversation], ledger: Ledger) -> Iterable[Conversation]:
        for conversation in conversations:
            ledger.counts.records_in += 1
            ledger.counts.turns_in += len(conversation.turns)
            yield conversation

    @property
    def turns(self) -> list[list[tuple[str, str]]]:
        return [[(turn.role[0], turn.text) for turn in kept.turns] for kept in self.kept]

    @property
    def texts(self) -> list[str]:
        """Of the only conversation that was kept."""
        [kept] = self.kept
        return [turn.text for turn in kept.turns]

    @property
    def reason(self) -> tuple[str, str]:
        """Of the only line in the reject file."""
        [line] = self.lines
        return line["reason"], line["detail"]


def assert_sums_match(ran: Ran) -> None:
    counts = ran.counts
    assert counts.records_in == counts.records_out + counts.rejected.total()
    turns_gone = counts.turns_rejected + counts.turns_merged + counts.cut.total()
    assert counts.turns_in == counts.turns_out + turns_gone
