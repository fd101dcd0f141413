"""What a turn holds beside its text and a recipe keeps (`input: {keep: […]}`). Only `shapes.py` calls it.

tools      `tool_calls` or `function_call` of an assistant's turn; `tool_call_id` and `name` of a tool's result
reasoning  `reasoning_content`, `reasoning` or `thinking` of an assistant's turn
labels     `label` of an answer: true is good, false is bad
"""

from collections.abc import Collection
from typing import Any

from pipelines.formats.records import NOTHING, BadRecord
from pipelines.formats.tool_calls import calls_of, text_of
from services.errors import shown

CALL_KEYS = ("tool_calls", "tool_call_id", "name")  # of a message
REASONING = ("reasoning_content", "reasoning", "thinking")  # of a message: the first that says something counts

Keys = dict[str, Any]


def taken(keys: Keys, role: str, where: str, keep: Collection[str]) -> Keys:
    """The fields of a FullTurn, taken out of the keys of a turn. Empty if the text is all of it. Raises BadRecord."""
    found: Keys = {}
    if "tools" in keep:
        found |= _calls(keys, where) if role == "assistant" else _result(keys, role, where)
    if "reasoning" in keep and role == "assistant":
        found |= _reasoning(keys, where)
    if "labels" in keep and role == "assistant" and "label" in keys:
        found["label"] = label_of(keys.pop("label"), f"{where}.label")
    return found


def label_of(value: Any, where: str) -> bool:
    """Whether people found an answer good. Raises BadRecord."""
    if value in (True, False) and isinstance(value, bool | int | float):
        return bool(value)
    raise BadRecord("bad_label", f"{where} is {shown(value)}: true is a good answer, false a bad one")


def _calls(keys: Keys, where: str) -> Keys:
    """`function_call` is the one call of OpenAI's older shape."""
    if "tool_calls" in keys:
        calls = calls_of(keys.pop("tool_calls"), f"{where}.tool_calls")
    elif "function_call" in keys:
        calls = calls_of([keys.pop("function_call")], f"{where}.function_call")
    else:
        return {}
    return {"calls": calls} if calls else {}


def _result(keys: Keys, role: str, where: str) -> Keys:
    if role != "tool":
        return {}
    named = {"call": keys.pop("tool_call_id", None), "name": keys.pop("name", None)}
    return {field: text_of(value, f"{where}.{field}") for field, value in named.items() if value}


def _reasoning(keys: Keys, where: str) -> Keys:
    name = next((name for name in REASONING if keys.get(name) not in NOTHING), "")
    if not name:
        return {}
    if not isinstance(keys[name], str):
        raise BadRecord("bad_shape", f"{where}.{name} is {shown(keys[name])}; a string is needed")
    return {"reasoning": keys.pop(name)}
