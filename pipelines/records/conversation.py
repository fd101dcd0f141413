"""A conversation during a cleaning: readers make it, steps pass it on and writers take it.

Between two stages it is one JSON line of a shard file (`dump`, `load`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from services.wire.messages import ToolCall

ROLES = ("system", "user", "assistant")
ID_CHARS = 16  # of the digest that names a conversation without an id: 64 bits


@dataclass(frozen=True, slots=True)
class Turn:
    """`role` is one of ROLES, or what the input said instead: the step `roles` judges it."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class FullTurn(Turn):
    """A turn that holds more than its text: what a recipe keeps of answers, calls of tools and their results."""

    reasoning: str = ""  # what the assistant thought before the answer
    calls: tuple[ToolCall, ...] = ()
    call: str = ""  # of a result: the id of the call that it answers
    name: str = ""  # of a result: the tool
    label: bool | None = None  # of an answer: whether people found it good


@dataclass(frozen=True, slots=True)
class Aside(Turn):
    """What a step is shown of a turn beside its answer: reasoning, or the words before a call. It may be short."""


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
    rejected: Turn | None = None  # of a pair: the answer to which people preferred the last turn
    tools: tuple[Mapping[str, Any], ...] = ()  # that the assistant may call, as OpenAI describes them

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


def is_plain(conversation: Conversation) -> bool:
    """Whether its turns' texts are all of it."""
    more = conversation.rejected is not None or conversation.tools
    return not more and all(type(turn) is Turn for turn in conversation.turns)


def with_text(turn: Turn, text: str) -> Turn:
    if text == turn.text:
        return turn
    return replace(turn, text=text) if isinstance(turn, FullTurn) else Turn(turn.role, text)


def with_label(turn: Turn, label: bool | None) -> Turn:
    if isinstance(turn, FullTurn):
        return replace(turn, label=label)
    return turn if label is None else FullTurn(turn.role, turn.text, label=label)


def same_answer(one: Turn, other: Turn) -> bool:
    """Whether two answers say, think and call the same."""
    return _details(with_label(one, None)) == _details(with_label(other, None)) and one.text == other.text


def digest_id(turns: Sequence[Turn]) -> str:
    """A stable id for a record that has none: the same turns, the same id, wherever they stand."""
    text = orjson.dumps([_listed(turn) for turn in turns])
    return hashlib.sha256(text).hexdigest()[:ID_CHARS]


def as_record(conversation: Conversation) -> dict[str, Any]:
    """The JSON shape in shard files and in the reject file; defaults are left out."""
    record: dict[str, Any] = {
        "id": conversation.id,
        "turns": [[turn.role, turn.text] if type(turn) is Turn else _listed(turn) for turn in conversation.turns],
        "source": [conversation.source.file, conversation.source.line],
    }
    for name in ("origin", "model", "split", "extra"):
        if value := getattr(conversation, name):
            record[name] = value
    if conversation.rejected is not None:
        record["rejected"] = _listed(conversation.rejected)
    if conversation.tools:
        record["tools"] = list(conversation.tools)
    return record


def from_record(record: Mapping[str, Any]) -> Conversation:
    """The inverse of `as_record`."""
    return Conversation(
        id=record["id"],
        turns=tuple(Turn(*given) if len(given) == 2 else _full(*given) for given in record["turns"]),
        source=Source(*record["source"]),
        origin=record.get("origin", ""),
        model=record.get("model", ""),
        split=record.get("split", ""),
        extra=record.get("extra", {}),
        rejected=_full(*record["rejected"]) if "rejected" in record else None,
        tools=tuple(record.get("tools", ())),
    )


def _listed(turn: Turn) -> list[Any]:
    """[role, text], and an object with what else the turn holds."""
    details = _details(turn)
    return [turn.role, turn.text, details] if details else [turn.role, turn.text]


def _details(turn: Turn) -> dict[str, Any]:
    if not isinstance(turn, FullTurn):
        return {}
    found = {name: value for name in ("reasoning", "call", "name") if (value := getattr(turn, name))}
    if turn.calls:
        found["calls"] = [[call.name, call.arguments, call.identity] for call in turn.calls]
    return found if turn.label is None else {**found, "label": turn.label}


def _full(role: str, text: str, details: Mapping[str, Any] | None = None) -> Turn:
    if not details:
        return Turn(role, text)
    return FullTurn(role, text, **{**details, "calls": tuple(ToolCall(*call) for call in details.get("calls", ()))})


def dump(conversation: Conversation) -> bytes:
    """One line of a shard file."""
    return orjson.dumps(as_record(conversation), option=orjson.OPT_APPEND_NEWLINE)


def load(line: bytes) -> Conversation:
    return from_record(orjson.loads(line))
