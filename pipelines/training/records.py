"""Reads training records: which messages a conversation has, and which of its answers are learnt. `data.py` calls it.

It reads every shape and format that cleaning reads and writes, and `{"text"}`, which training learns whole:

    {"prompt", "completion"}         texts, or lists of messages: a question and the answer to learn
    {"text"}                         plain text, which is learnt whole

`weight`, `train` or `loss` of an assistant's message says whether this answer is learnt: 0 or false means no.
`reasoning_content`, `thinking` or `reasoning` of it is what the assistant thought before it answered. `tool_records.py`
reads calls of tools. A record that says what this program cannot do (a fractional weight, a pair of a chosen and a
rejected answer) is refused with the field's name. `UNUSED` are fields that change nothing; the reader counts them, so
that nobody trusts in them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.formats import foreign
from pipelines.formats.datasets import pairs
from pipelines.formats.read import values
from pipelines.formats.records import NOTHING, BadRecord, Parsed
from pipelines.formats.shapes import ROLE_NAMES, TURN_KEYS, TURN_LISTS, WEIGHTS, conversation
from pipelines.formats.tool_calls import tools_of
from pipelines.formats.turn_details import CALL_KEYS, REASONING
from pipelines.formats.unlearnable import check_labels
from pipelines.records.conversation import Conversation, Source, Turn, digest_id
from pipelines.training.tool_records import message_of
from services.errors import shown
from services.wire.messages import Message

UNUSED = ("functions", "images", "videos", "audios")
_TAKEN = (*WEIGHTS, *REASONING, *CALL_KEYS)


@dataclass(frozen=True, slots=True)
class Record:
    """One record that can be trained on: messages, or a plain text. `learnt` has a flag for each assistant message."""

    where: str  # file and line
    identity: str
    messages: tuple[Message, ...] = ()
    learnt: tuple[bool, ...] = ()
    text: str = ""
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation of a record with what its turns hold beside role and text, as messages and as they stand."""

    conversation: Conversation
    messages: tuple[Message, ...]
    keys: list[dict[str, Any]]
    tools: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record that cannot be trained on. `readable`: it is a conversation, and the model's template refuses it."""

    where: str
    reason: str
    detail: str
    readable: bool = False


def read_records(path: Path, unused: "Counter[str]") -> Iterator[Record | Refusal]:
    """Every record of a file, in order. Counts in `unused` the records with a field that changes nothing.

    Raises ConfigurationError if the file cannot be opened.
    """
    for position, found in enumerate(values(str(path))):
        where = f"{path.name}:{found.line}"
        if not isinstance(found, Parsed):
            yield Refusal(where, found.reason, found.detail)
            continue
        try:
            yield _record(found.value, where, Source(str(path), found.line), position, unused)
        except BadRecord as error:
            yield Refusal(where, error.reason, str(error))


def _record(value: Any, where: str, source: Source, position: int, unused: "Counter[str]") -> Record:
    fields = dict(value) if isinstance(value, dict) else value
    if isinstance(fields, dict):
        _check_purpose(fields)
        if _is_text(fields):
            return _text_record(fields, where)
        translated = foreign.shown(_as_messages(fields))
        fields = translated.record
        unused.update(f"message ({each.reason})" for each in translated.left_out)
    found = read_dialogue(fields, source, position, unused)
    check_labels(found.conversation)
    learnt = _learnt(found.conversation.turns, found.keys)
    return Record(where, found.conversation.origin_id, found.messages, learnt, tools=found.tools)


def read_dialogue(fields: Any, source: Source, position: int, unused: "Counter[str]") -> Dialogue:
    """The conversation of a record without another program's format. Raises BadRecord."""
    own = _taken_keys(fields)
    found = conversation(fields, "auto", source, position)
    keys = _aligned(found, own, len(found.turns))
    _count_unused(found, fields, found.turns, keys, unused)
    messages = tuple(
        message_of(turn, given, reasoning_of(turn, given, number), number)
        for number, (turn, given) in enumerate(zip(found.turns, keys, strict=True))
    )
    return Dialogue(found, messages, keys, tools_of(found.extra.get("tools")))


def _check_purpose(fields: Mapping[str, Any]) -> None:
    for name in pairs.NAMES:
        if fields.get(name) is not None:
            raise BadRecord("preference", f"{name}: a pair of answers, one preferred; answers alone can be trained on")
    if fields.get("label") is False and "completion" in fields:
        raise BadRecord("negative_example", "label is false: an answer that nobody wants the model to learn")


# -- shapes that only training can use -------------------------------------------------------------------------------


def _is_text(fields: Mapping[str, Any]) -> bool:
    others = (*(name for names in TURN_LISTS.values() for name in names), "instruction", "prompt")
    return isinstance(fields.get("text"), str) and not any(fields.get(name) is not None for name in others)


def _text_record(fields: Mapping[str, Any], where: str) -> Record:
    text = fields["text"]
    if not text.strip():
        raise BadRecord("bad_shape", "text is empty")
    return Record(where, str(fields.get("id") or digest_id([Turn("text", text)])), text=text)


def _as_messages(fields: dict[str, Any]) -> dict[str, Any]:
    """A record with prompt and completion as one with messages; any other as it is."""
    if fields.get("completion") is None or fields.get("prompt") is None or fields.get("messages") is not None:
        return fields
    rest = {name: value for name, value in fields.items() if name not in ("prompt", "completion", "messages", "label")}
    asked = [{**turn, "train": False} if _says(turn) else turn for turn in _turns_of(fields, "prompt", "user")]
    return {**rest, "messages": asked + _turns_of(fields, "completion", "assistant")}


def _turns_of(fields: Mapping[str, Any], name: str, role: str) -> list[Any]:
    value = fields[name]
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return value
    raise BadRecord("bad_shape", f"{name} is {shown(value)}; a text or a list of messages is needed")


def _says(turn: Any) -> bool:
    return isinstance(turn, dict) and ROLE_NAMES.get(str(turn.get("role", "")).strip().lower()) == "assistant"


# -- which answers are learnt ----------------------------------------------------------------------------------------


def _taken_keys(fields: Any) -> list[dict[str, Any]]:
    """What each turn has under `_TAKEN`, taken out of the record: cleaning's reader would refuse some of it."""
    if not isinstance(fields, dict):
        return []
    for name in (name for names in TURN_LISTS.values() for name in names):
        turns = fields.get(name)
        if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
            fields[name] = [_without_keys(turn) for turn in turns]
            return [{key: turn[key] for key in _TAKEN if turn.get(key) is not None} for turn in turns]
    return []


def _without_keys(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn that only calls may say nothing."""
    text = {"content": ""} if turn.get("tool_calls") and turn.get("content", turn.get("value")) is None else {}
    return {**{key: turn[key] for key in turn if key not in _TAKEN}, **text}


def _aligned(found: Conversation, own: list[dict[str, Any]], num_turns: int) -> list[dict[str, Any]]:
    """The keys, one object for each turn. A system text or a history that stands beside the turns has none."""
    keys = own if any(own) else _kept_keys(found)
    return [{}] * (num_turns - len(keys)) + keys


def _kept_keys(found: Conversation) -> list[dict[str, Any]]:
    """Those that a cleaning kept in `extra`. Of turns that were cut since, nobody can tell whose these are."""
    kept = found.extra.get(TURN_KEYS)
    if not isinstance(kept, list) or not all(isinstance(keys, dict) for keys in kept):
        return []
    keys = [{key: turn[key] for key in _TAKEN if key in turn} for turn in kept]
    if len(keys) == len(found.turns):
        return keys
    if any(name in turn for turn in keys for name in WEIGHTS):
        raise BadRecord("lost_weight", f"{TURN_KEYS}: the cleaning cut turns; nobody can tell whose these weights are")
    return []


def reasoning_of(turn: Turn, given: Mapping[str, Any], number: int) -> str:
    for name in REASONING:
        if given.get(name) in NOTHING or turn.role != "assistant":
            continue
        if not isinstance(given[name], str):
            raise BadRecord("bad_shape", f"{name} of turn {number} is {shown(given[name])}; a string is needed")
        return str(given[name])
    return ""


def _learnt(turns: Sequence[Turn], weights: Sequence[Mapping[str, Any]]) -> tuple[bool, ...]:
    flags = []
    for number, (turn, given) in enumerate(zip(turns, weights, strict=True)):
        wanted = [_flag(name, given[name], number) for name in WEIGHTS if name in given]
        if turn.role == "assistant":
            flags.append(all(wanted))
        elif any(_flag(name, given[name], number) for name in ("train", "loss") if name in given):
            raise BadRecord("trains_question", f"turn {number} is {shown(turn.role)}: only answers can be learnt")
    return tuple(flags)


def _flag(name: str, value: Any, number: int) -> bool:
    if value in (0, 1) and isinstance(value, bool | int | float):
        return bool(value)
    kind = "fractional_weight" if isinstance(value, int | float) else "bad_shape"
    raise BadRecord(kind, f"{name} of turn {number} is {shown(value)}: an answer is learnt (1, true) or not (0, false)")


def _count_unused(
    found: Conversation, fields: Any, turns: Sequence[Turn], read: Sequence[Mapping[str, Any]], unused: "Counter[str]"
) -> None:
    """`read`: what was read of each turn. Reasoning is used on answers alone."""
    kept = found.extra.get(TURN_KEYS, [])
    names = {name for keys in kept if isinstance(keys, dict) for name in keys} if isinstance(kept, list) else set()
    names |= {name for name in fields if fields[name]} if isinstance(fields, dict) else set()
    answers = [keys for turn, keys in zip(turns, read, strict=True) if turn.role == "assistant"]
    others = [keys for turn, keys in zip(turns, read, strict=True) if turn.role != "assistant"]
    names -= {name for keys in answers for name in keys}
    names |= {name for keys in others for name in REASONING if keys.get(name) not in NOTHING}
    unused.update(names & {*UNUSED, *REASONING})
