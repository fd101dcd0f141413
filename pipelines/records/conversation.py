"""A conversation during a cleaning: readers make it, steps pass it on and writers take it.

Between two stages it is one JSON line of a shard file (`dump`, `load`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

ROLES = ("system", "user", "assistant")
ID_CHARS = 16  # of the digest that names a conversation without an id: 64 bits


@dataclass(frozen=True, slots=True)
class Turn:
    """`role` is one of ROLES, or what the input said instead: the step `roles` judges it."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a record began: the input's name, and the line (text) or row (Parquet), from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """One record. `id` is the input's, or the digest of its turns; a piece of a long one has `<id>_<first turn>`."""

    id: str
    turns: tuple[Turn, ...]
    source: Source
    origin: str = ""  # the id of the input record when `id` is no longer that
    model: str = ""  # that answered, as far as the input says
    split: str = ""  # train or validation, once that is decided
    extra: Mapping[str, Any] = field(default_factory=dict)  # what else the record held

    @property
    def origin_id(self) -> str:
        """The id of the input record that this came from."""
        return self.origin or self.id

    def with_turns(self, turns: Sequence[Turn]) -> "Conversation":
        return replace(self, turns=tuple(turns))

    def renamed(self, name: str) -> "Conversation":
        """The same under another id; `origin` keeps the id of the input record."""
        return replace(self, id=name, origin=self.origin_id)

    def with_finding(self, name: str, value: Any) -> "Conversation":
        """`extra[name]` is what a step found. What the input says of that name stays, as `given_<name>`."""
        extra = {**self.extra, name: value}
        if name in self.extra and self.extra[name] != value:
            extra.setdefault(f"given_{name}", self.extra[name])
        return replace(self, extra=extra)

    def num_chars(self) -> int:
        return sum(len(turn.text) for turn in self.turns)


def digest_id(turns: Sequence[Turn]) -> str:
    """A stable id for a record that has none: the same turns, the same id, wherever they stand."""
    text = orjson.dumps([[turn.role, turn.text] for turn in turns])
    return hashlib.sha256(text).hexdigest()[:ID_CHARS]


def as_record(conversation: Conversation) -> dict[str, Any]:
    """The JSON shape in shard files and in the reject file; defaults are left out."""
    record: dict[str, Any] = {
        "id": conversation.id,
        "turns": [[turn.role, turn.text] for turn in conversation.turns],
        "source": [conversation.source.file, conversation.source.line],
    }
    for name in ("origin", "model", "split", "extra"):
        if value := getattr(conversation, name):
            record[name] = value
    return record


def from_record(record: Mapping[str, Any]) -> Conversation:
    """The inverse of `as_record`."""
    return Conversation(
        id=record["id"],
        turns=tuple(Turn(role, text) for role, text in record["turns"]),
        source=Source(*record["source"]),
        origin=record.get("origin", ""),
        model=record.get("model", ""),
        split=record.get("split", ""),
        extra=record.get("extra", {}),
    )


def dump(conversation: Conversation) -> bytes:
    """One line of a shard file."""
    return orjson.dumps(as_record(conversation), option=orjson.OPT_APPEND_NEWLINE)


def load(line: bytes) -> Conversation:
    return from_record(orjson.loads(line))
