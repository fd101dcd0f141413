"""A conversation that comes from elsewhere, checked, before it has rows; and the reader of our own export. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from services.conversations.edits import MAX_SYSTEM_CHARS, parse_id, parse_object, parse_settings, parse_text
from services.conversations.tables import ROLES, STATES
from services.conversations.titles import NAMELESS
from services.errors import InvalidRequest, TooLarge, shown
from services.wire.keys import check_name

MAX_TITLE_CHARS = 200
MAX_TEXT_CHARS = 1_000_000
MAX_MESSAGES = 10_000  # a conversation is read whole
MAX_OBJECT_BYTES = 2_000_000  # of all objects of a conversation: whatever a reader's processor time goes into
MAX_MS = 10**14
TEXTS = ("content", "reasoning", "code", "error")
TITLED_BY = ("first_words", "user", "model")


@dataclass(frozen=True)
class DraftMessage:
    """The columns of a message. An unfinished one is `open` or `unsent`."""

    id: str
    parent_id: str | None
    role: str
    content: str
    created_ms: int
    reasoning: str = ""
    state: str = "finished"
    code: str = ""
    error: str = ""
    model: str = ""
    asked_by: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    hidden: bool = False
    ended_ms: int | None = None
    feedback: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Draft:
    """The columns of a conversation. `messages`: a parent before its children."""

    id: str
    title: str
    created_ms: int
    updated_ms: int
    messages: tuple[DraftMessage, ...]
    current_id: str | None
    titled_by: str = "first_words"
    model: str = ""
    system: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    pinned: bool = False
    source: str = ""

    def renamed(self, new_id: Callable[[], str]) -> "Draft":
        """The same under ids that are new."""
        ids = {message.id: new_id() for message in self.messages}
        messages = tuple(
            replace(
                message,
                id=ids[message.id],
                parent_id=ids[message.parent_id] if message.parent_id else None,
                extra=_renamed(message.extra, ids),
            )
            for message in self.messages
        )
        return replace(self, id=new_id(), messages=messages, current_id=ids.get(self.current_id or ""))


def _renamed(extra: Mapping[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    """`continues` names a message."""
    return {name: ids.get(value, value) if name == "continues" else value for name, value in extra.items()}


def cut_title(text: object) -> str:
    """A title of another program, as ours can be."""
    told = text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""  # without halves of pairs
    return " ".join(told.split())[:MAX_TITLE_CHARS] or NAMELESS


def size_of(message: DraftMessage) -> int:
    """How many characters it brings."""
    return len(message.content) + len(message.reasoning) + len(message.error)


def check_size(draft: Draft) -> None:
    """Raises TooLarge for a conversation that would be slow to read, whenever it is looked at."""
    if len(draft.messages) > MAX_MESSAGES:
        raise TooLarge(f"it has {len(draft.messages):,} messages; the limit is {MAX_MESSAGES:,}")
    objects = [draft.settings, *([each.parameters, each.usage, each.extra] for each in draft.messages)]
    # Some lists deeper than they will stand: orjson has a bound on depth.
    if (size := len(orjson.dumps([[[objects]]]))) > MAX_OBJECT_BYTES:
        what = "its settings and the parameters, usage and extra of its messages"
        raise TooLarge(f"{what} have {size:,} bytes; the limit is {MAX_OBJECT_BYTES:,}")


def parse_ours(raw: Mapping[str, Any]) -> Draft:
    """A conversation of our own export. Raises InvalidRequest naming what is wrong."""
    messages = in_order([_message(each) for each in _listed(raw.get("messages"))])
    ids = {message.id for message in messages}
    current_id = raw.get("current_id")
    if current_id is not None and not (isinstance(current_id, str) and current_id in ids):
        raise InvalidRequest(f"current_id {shown(current_id)} is none of its messages")
    return Draft(
        parse_id(raw.get("id")),
        cut_title(raw.get("title")),
        _time(raw.get("created_ms"), "created_ms"),
        _time(raw.get("updated_ms"), "updated_ms"),
        messages,
        current_id,
        _one_of(raw.get("titled_by", "first_words"), TITLED_BY, "titled_by"),
        _name(raw.get("model", ""), "model"),
        parse_text(raw.get("system", ""), "system", MAX_SYSTEM_CHARS),
        parse_settings(raw.get("settings") or {}),
        parse_text(raw.get("folder", ""), "folder", 100),
        raw.get("pinned") is True,
        parse_text(raw.get("source", ""), "source", 300),
    )


def in_order(messages: Iterable[DraftMessage]) -> tuple[DraftMessage, ...]:
    """The same, each behind its parent, else as they are. Raises InvalidRequest where a parent is missing."""
    given = list(messages)
    if len({message.id for message in given}) < len(given):
        raise InvalidRequest("two of its messages have the same id")
    placed: set[str | None] = {None}
    waiting, ordered = dict[str | None, list[DraftMessage]](), list[DraftMessage]()
    for message in given:
        ready = [message] if message.parent_id in placed else []
        if not ready:
            waiting.setdefault(message.parent_id, []).append(message)
        while ready:
            ordered.append(ready.pop())
            placed.add(ordered[-1].id)
            ready += reversed(waiting.pop(ordered[-1].id, []))
    if waiting:
        raise InvalidRequest(
            f"the message {next(iter(waiting.values()))[0].id!r:.80} stands under one that is not there"
        )
    return tuple(ordered)


def _message(raw: object) -> DraftMessage:
    if not isinstance(raw, Mapping):
        raise InvalidRequest("a message must be an object")
    texts = {name: parse_text(raw.get(name, ""), name, MAX_TEXT_CHARS) for name in TEXTS}
    parent_id, ended_ms = raw.get("parent_id"), raw.get("ended_ms")
    return DraftMessage(
        id=parse_id(raw.get("id")),
        parent_id=None if parent_id is None else parse_id(parent_id, "parent_id"),
        role=_one_of(raw.get("role"), ROLES, "role"),
        created_ms=_time(raw.get("created_ms"), "created_ms"),
        state=_one_of(raw.get("state", "finished"), STATES, "state"),
        model=_name(raw.get("model", ""), "model"),
        parameters=parse_object(raw.get("parameters"), "parameters"),
        usage=None if raw.get("usage") is None else parse_object(raw["usage"], "usage"),
        extra=parse_object(raw.get("extra"), "extra"),
        hidden=raw.get("hidden") is True,
        ended_ms=None if ended_ms is None else _time(ended_ms, "ended_ms"),
        feedback=_feedback(raw.get("feedback")),
        **texts,
    )


def _feedback(raw: object) -> dict[str, str] | None:
    if raw is None:
        return None
    judged = parse_object(raw, "feedback")
    texts = {name: parse_text(judged.get(name, ""), name, MAX_TEXT_CHARS) for name in ("reason", "better")}
    return {"verdict": _one_of(judged.get("verdict"), ("up", "down", "flag", "correction"), "verdict"), **texts}


def _listed(raw: object) -> list[Any]:
    if not isinstance(raw, list):
        raise InvalidRequest("messages must be a list")
    return raw


def _one_of(raw: object, known: tuple[str, ...], name: str) -> str:
    if raw not in known:
        raise InvalidRequest(f"{name} {shown(raw)} is not one of {', '.join(known)}")
    return str(raw)


def _name(raw: object, name: str) -> str:
    return "" if raw == "" else check_name(raw, name)


def _time(raw: object, name: str) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw <= MAX_MS:
        raise InvalidRequest(f"{name} {shown(raw)} is no time in milliseconds")
    return raw
