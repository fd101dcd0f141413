"""Turns training records of each shape into Conversations. `read.py` and `pipelines/training/` call it.

    sharegpt  {"conversations": [{"from", "value"}, …]}, or `items`; turns as {"role", "content"} are read too
    openai    {"messages": [{"role", "content"}, …]}, content a string or a list of text parts (joined)
    export    the same with a title: what the chat page exports
    alpaca    {"instruction", "input", "output"}, with "system" and "history" (earlier rounds) where there are such

`foreign.py` turns the formats of other programs and data sets into these before. A record that `write.py` wrote gets
its source, origin and extra back, and is read in the shape that it has, whatever the recipe calls the input.
`extra["turn_keys"]` holds what a turn has beside role and text (a name, a weight): one object for each turn that was
read, unchanged when steps cut turns. A log of calls keeps the last answer beside its `messages`; `logged_answer.py`
finds it there. Some records are refused, since a model would learn something else from
them than they say: a turn that calls a tool (`tool_calls`), an answer of weight 0, or with `train` or `loss` false,
which nobody wants to train on (`zero_weight`), and a refusal in place of a text.

`keep` (of InputOptions) lets more in. `turn_details.py` reads what a turn then holds beside its text; `rejected`, which
`datasets/pairs.py` wrote, is the other one of two answers.
"""

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from pipelines.formats.logged_answer import with_answer
from pipelines.formats.records import NOTHING, BadRecord
from pipelines.formats.tool_calls import tools_of
from pipelines.formats.turn_details import label_of, taken
from pipelines.records.conversation import (
    Conversation,
    FullTurn,
    Source,
    Turn,
    as_record,
    digest_id,
    same_answer,
    with_label,
)
from services.errors import shown

ROLE_NAMES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "bot": "assistant", "claude": "assistant", "model": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
ALPACA = ("instruction", "input", "output")
TURN_LISTS = {"sharegpt": ("conversations", "items"), "openai": ("messages",), "export": ("messages",)}
TEXT_PARTS = ("text", "input_text", "output_text")
NO_INPUT = ("<noinput>", "noinput", "no input", "nan")  # how alpaca files say that there is none
CALLS = ("tool_calls", "function_call")
WEIGHTS = ("weight", "train", "loss")  # of an answer: 0 or false means that nobody should learn it
TURN_KEYS = "turn_keys"  # of a record's extra
KEYS_TOLD = 10
NESTED = 16  # a record must still be written when it lies so deep in a line of a report

Turns = tuple[tuple[Turn, ...], list[dict[str, Any]]]  # and for each what it holds beside role and text


def conversation(record: Any, shape: str, source: Source, position: int, keep: Collection[str] = ()) -> Conversation:
    """The conversation that `record` holds. `position` from 0 in its file; `shape` and `keep` as in InputOptions."""
    if not isinstance(record, dict):
        raise BadRecord("not_an_object", f"a record is an object, this is {_kind(record)}")
    if shape == "auto" or _is_ours(record.get("source")):
        shape = _shape(record)
    rest = dict(record)
    turns, turn_keys = _alpaca(rest) if shape == "alpaca" else _turns(rest, TURN_LISTS[shape], keep)
    turns = _labelled(rest, turns) if "labels" in keep else turns
    tools = _tools(rest) if "tools" in keep else ()
    rejected = _rejected(rest, turns, turn_keys, keep) if "pairs" in keep else None
    name = _id(rest)
    if not name:
        name = f"alpaca_{position}" if shape == "alpaca" else digest_id((*turns, rejected) if rejected else turns)
    model = rest.pop("model") if isinstance(rest.get("model"), str) else ""
    if rest.get("model", "") is None:
        del rest["model"]
    origin, source, extra = _provenance(rest, source)
    extra = _with_turn_keys(extra, turn_keys)
    _check_extra(extra)
    if not keep:
        return Conversation(name, turns, source, origin=origin, model=model, extra=extra)
    made = Conversation(name, turns, source, origin=origin, model=model, extra=extra, rejected=rejected, tools=tools)
    _check_extra(as_record(made))
    return made


def _kind(value: Any) -> str:
    return shown(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _shape(record: Mapping[str, Any]) -> str:
    for shape, names in TURN_LISTS.items():
        if any(isinstance(record.get(name), list) for name in names):
            return shape
    if "instruction" in record and "output" in record:
        return "alpaca"
    raise BadRecord("bad_shape", f"no known shape of record; its keys: {_keys(record)}")


def _keys(record: Mapping[str, Any]) -> str:
    names = [f"{name!s:.40}" for name in record]
    more = f" and {len(names) - KEYS_TOLD} more" if len(names) > KEYS_TOLD else ""
    return ", ".join(names[:KEYS_TOLD]) + more


def _id(rest: dict[str, Any]) -> str:
    value = rest.pop("id", None)
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise BadRecord("bad_shape", f"id is {_kind(value)}; a string or an integer is needed")
    return "" if value is None else str(value)


def _turns(rest: dict[str, Any], names: tuple[str, ...], keep: Collection[str]) -> Turns:
    """Takes the turns out of `rest`, and a system text that stands beside them."""
    name = next((name for name in names if name in rest), names[0])
    if not isinstance(rest.get(name), list):
        raise BadRecord("bad_shape", f"{name} is {_kind(rest.get(name))}; a list of turns is needed")
    given = with_answer(rest, rest.pop(name))
    found = [_turn(turn, f"{name}[{index}]", keep) for index, turn in enumerate(given)]
    turns, turn_keys = tuple(turn for turn, _ in found), [keys for _, keys in found]
    return (turns, turn_keys) if turns and turns[0].role == "system" else _after_system(rest, turns, turn_keys)


def _after_system(rest: dict[str, Any], turns: tuple[Turn, ...], turn_keys: list[dict[str, Any]]) -> Turns:
    system = rest.pop("system") if isinstance(rest.get("system"), str) else ""
    return ((Turn("system", system), *turns), [{}, *turn_keys]) if system.strip() else (turns, turn_keys)


def _turn(turn: Any, where: str, keep: Collection[str]) -> tuple[Turn, dict[str, Any]]:
    """The turn, and what it holds beside role and text."""
    if not isinstance(turn, dict):
        raise BadRecord("bad_shape", f"{where} is {_kind(turn)}; an object is needed")
    role_key = "from" if "from" in turn else "role"
    text_key = "value" if "value" in turn else "content"
    keys = {key: turn[key] for key in turn if key not in (role_key, text_key) and turn[key] not in NOTHING}
    role, text = _string(turn.get(role_key), f"{where}.{role_key}"), turn.get(text_key)
    role = ROLE_NAMES.get(role.strip().lower(), role)
    if "tools" in keep and role == "function":
        role = "tool"  # OpenAI's older name
    more = taken(keys, role, where, keep) if keep else {}
    _check_keys(keys, role, text, where)
    if isinstance(text, list):
        text = _joined(text, f"{where}.{text_key}", "" if role == "assistant" else "\n")
    text = "" if text is None and "calls" in more else _string(text, f"{where}.{text_key}")
    return (FullTurn(role, text, **more) if more else Turn(role, text)), keys


def _check_keys(keys: Mapping[str, Any], role: str, text: Any, where: str) -> None:
    """A turn that its text does not tell is refused rather than trained on as if it did."""
    for name in CALLS:
        if name in keys:
            raise BadRecord("tool_calls", f"{where} has {name}; only what is said as text can be trained on")
    for name in WEIGHTS:
        if role == "assistant" and keys.get(name) == 0:
            said = keys[name] if isinstance(keys[name], bool) else 0
            told = f"{where}.{name} is {said}; an answer not to be trained on cannot be left out"
            raise BadRecord("zero_weight", told)
    if text is None and "refusal" in keys:
        raise BadRecord("bad_shape", f"{where} has a refusal and no text; a string is needed")


def _labelled(rest: dict[str, Any], turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The label of the record is that of its last answer, unless answers have labels of their own."""
    if rest.get("label") is None or any(isinstance(turn, FullTurn) and turn.label is not None for turn in turns):
        return turns
    label = label_of(rest.pop("label"), "label")
    if not turns or turns[-1].role != "assistant":
        raise BadRecord("bad_label", "the record has a label, and its last turn is no answer")
    return (*turns[:-1], with_label(turns[-1], label))


def _tools(rest: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The tools that stand beside the turns; `functions` is their older name."""
    name = next((name for name in ("tools", "functions") if rest.get(name) not in NOTHING), "")
    return tools_of(rest.pop(name)) if name else ()


def _rejected(
    rest: dict[str, Any], turns: tuple[Turn, ...], turn_keys: list[dict[str, Any]], keep: Collection[str]
) -> Turn | None:
    """The answer to which the last turn was preferred. Its further keys come after those of the turns."""
    if not isinstance(rest.get("rejected"), dict):
        return None
    other, keys = _turn(rest.pop("rejected"), "rejected", keep)
    if other.role != "assistant" or not turns or turns[-1].role != "assistant":
        raise BadRecord("bad_shape", "one of the two answers is not the assistant's")
    if same_answer(turns[-1], other):
        raise BadRecord("equal_answers", "the two answers are equal: nothing is preferred")
    if keys:
        turn_keys.append(keys)
    return other


def _with_turn_keys(extra: dict[str, Any], turn_keys: list[dict[str, Any]]) -> dict[str, Any]:
    if not any(turn_keys):
        return extra
    kept = extra.get(TURN_KEYS)
    if isinstance(kept, list) and len(kept) == len(turn_keys) and all(isinstance(keys, dict) for keys in kept):
        both = [{**keys, **own} for keys, own in zip(kept, turn_keys, strict=True)]  # what an earlier cleaning kept
        return {**extra, TURN_KEYS: both}
    if TURN_KEYS in extra:
        raise BadRecord("bad_shape", f"both the record and its turns have further keys that {TURN_KEYS} would hold")
    return {**extra, TURN_KEYS: turn_keys}


def _joined(parts: list[Any], where: str, between: str) -> str:
    """The text of a list of parts. A part that is no text (an image) makes the record one that cannot be kept whole.

    Models cut an answer within its sentences, at citations; people put a document and a question side by side.
    """
    texts = []
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type", "text") not in TEXT_PARTS:
            kind = part.get("type") if isinstance(part, dict) else part
            raise BadRecord("bad_shape", f"{where}[{index}] is {_kind(kind)}; only text parts are read")
        texts.append(_string(part.get("text"), f"{where}[{index}].text"))
    return between.join(texts)


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadRecord("bad_shape", f"{where} is {_kind(value)}; a string is needed")
    return value


def _alpaca(rest: dict[str, Any]) -> Turns:
    if rest.get("input") is None:
        rest["input"] = ""
    instruction, given, output = (_string(rest.pop(name, None), name) for name in ALPACA)
    if given.strip().lower() in NO_INPUT and instruction.strip():
        given = ""
    parts = [instruction] if instruction.strip() or not given.strip() else []
    if given.strip():
        parts.append(f"Input:\n{given}")
    turns = (*_history(rest.pop("history", None)), Turn("user", "\n".join(parts)), Turn("assistant", output))
    return _after_system(rest, turns, [{} for _ in turns])


def _history(rounds: Any) -> tuple[Turn, ...]:
    """The earlier rounds of an alpaca record: a list of [question, answer]."""
    if not rounds:
        return ()
    if not isinstance(rounds, list) or not all(_is_round(pair) for pair in rounds):
        raise BadRecord("bad_shape", "history is no list of [question, answer]")
    return tuple(turn for asked, said in rounds for turn in (Turn("user", asked), Turn("assistant", said)))


def _is_round(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)


def _provenance(rest: dict[str, Any], source: Source) -> tuple[str, Source, dict[str, Any]]:
    """Origin, source and what else there is, as written by us if `source` is our {file, line}, else all of it."""
    given: Any = rest.get("source")
    origin, extra = rest.get("origin", ""), rest.get("extra", {})
    if _is_ours(given) and isinstance(extra, dict) and isinstance(origin, str):
        others = {name: rest[name] for name in rest if name not in ("source", "origin", "extra")}
        return origin, Source(given["file"], given["line"]), {**others, **extra}
    return "", source, rest


def _is_ours(source: Any) -> bool:
    """Whether `write.py` wrote the record of this source, in the shape that its recipe named."""
    match source:
        case {"file": str(), "line": int()}:
            return len(source) == 2
    return False


def _check_extra(extra: dict[str, Any]) -> None:
    if not extra:
        return
    nested: Any = extra
    for _ in range(NESTED):
        nested = [nested]
    try:
        orjson.dumps(nested)
    except TypeError as error:
        raise BadRecord("too_deep", f"cannot be written as JSON again: {error}") from None
