"""The ledger: each step writes here what it rejects, cuts and changes, and why.

The sums must match: a record that enters a step leaves it, or is rejected once; a turn that enters leaves, is merged
into its neighbour, or is rejected with its record or alone. A turn that leaves shortened counts as a turn that leaves;
a line of the reject file (`"shortened": true`) then holds the record with all of its text. `chatserver clean` and the
report read the counts.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.records.conversation import Conversation, as_record

Sink = Callable[[dict[str, Any]], None]  # takes one line of the reject file


@dataclass
class StepCounts:
    """Of one step. `rejected` counts records, `cut` turns of records that go on, `changed` what a step names itself."""

    records_in: int = 0
    records_out: int = 0
    turns_in: int = 0
    turns_out: int = 0
    turns_merged: int = 0
    turns_rejected: int = 0  # with their record
    rejected: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    @property
    def pieces_added(self) -> int:
        """Records beyond those that went on: a step that splits makes several of one."""
        return self.records_out - (self.records_in - self.rejected.total())

    @property
    def turns_lost(self) -> int:
        """Turns that nobody accounts for; never other than 0. A system turn goes with every piece of a split record."""
        gone = self.turns_merged + self.turns_rejected + self.cut.total()
        return self.turns_in + self.changed["system_repeated"] - self.turns_out - gone

    def add(self, other: "StepCounts") -> None:
        for name in ("records_in", "records_out", "turns_in", "turns_out", "turns_merged", "turns_rejected"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("rejected", "cut", "changed"):
            getattr(self, name).update(getattr(other, name))

    def as_dict(self) -> dict[str, Any]:
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StepCounts":
        kept: Any = {name: Counter(value) if isinstance(value, dict) else value for name, value in values.items()}
        return cls(**kept)


class Ledger:
    """The ledger of one step. A step used alone needs no sink: what it rejects is then only counted."""

    def __init__(self, step: str = "", sink: Sink | None = None) -> None:
        self.step = step
        self.counts = StepCounts()
        self._sink = sink

    def reject(
        self, conversation: Conversation, reason: str, detail: str = "", numbers: Mapping[str, Any] | None = None
    ) -> None:
        """The whole record ends here. `reason` is a short stable name, `detail` the offending value.

        `numbers`: what the step measured and what it allows; further keys of the line.
        """
        self.counts.rejected[reason] += 1
        self.counts.turns_rejected += len(conversation.turns)
        self._write(conversation, reason, detail, None, numbers)

    def cut(self, conversation: Conversation, turns: Sequence[int], reason: str, detail: str = "") -> None:
        """These turns (indices into `conversation.turns`, as it entered the step) end here; the record goes on."""
        if turns:
            self.counts.cut[reason] += len(turns)
            self._write(conversation, reason, detail, list(turns))

    def shortened(self, conversation: Conversation, turn: int, reason: str, detail: str = "") -> None:
        """Only the beginning of this turn goes on. The line holds all of it; nothing is counted as cut."""
        self.counts.changed["truncated"] += 1
        self._write(conversation, reason, detail, [turn], {"shortened": True})

    def merged(self, num_turns: int) -> None:
        """So many turns became part of their neighbours."""
        self.counts.turns_merged += num_turns

    def changed(self, what: str, number: int = 1) -> None:
        """An edit that keeps the turn: counted, not written down."""
        self.counts.changed[what] += number

    def _write(
        self,
        conversation: Conversation,
        reason: str,
        detail: str,
        turns: list[int] | None,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        if self._sink is None:
            return
        line: dict[str, Any] = {"step": self.step, "reason": reason, "detail": detail}
        if turns is not None:
            line["turns"] = turns
        self._sink({**line, **(further or {}), "record": as_record(conversation)})
