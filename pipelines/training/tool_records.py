"""Reads the calls of tools, their results and the tools themselves out of a training record. `records.py` calls it.

    {"tools": [{"type": "function", "function": {"name", "description", "parameters"}}, …], "messages": [
      {"role": "assistant", "content": null, "tool_calls": [{"id", "function": {"name", "arguments"}}, …]},
      {"role": "tool", "tool_call_id", "content"}, …]}

That is OpenAI's shape. `tools` may be JSON as text, as data sets with columns have it; `arguments` JSON as text, or an
object; a call and a tool may lack the `function` around their fields.
"""

from collections.abc import Mapping
from typing import Any, cast

import orjson

from pipelines.formats.records import BadRecord
from pipelines.formats.shapes import NOTHING
from pipelines.records.conversation import Turn
from services.errors import shown
from services.tokens.tool_turns import CallMessage, ResultMessage, ToolCall
from services.wire.messages import Message

CALL_KEYS = ("tool_calls", "tool_call_id", "name")  # of a message
_SHAPE = "{type: function, function: {name, description, parameters}} is needed"


def tools_of(value: Any) -> tuple[dict[str, Any], ...]:
    """The tools of a record. Raises BadRecord."""
    found = _parsed(value, "tools") if isinstance(value, str) and value.strip() else value
    if found in NOTHING:
        return ()
    if not isinstance(found, list):
        raise BadRecord("bad_shape", f"tools is {shown(found)}; a list of tools is needed")
    return tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(found))


def message_of(turn: Turn, given: Mapping[str, Any], reasoning: str, number: int) -> Message:
    """The message of a turn. `given` has what the turn says under CALL_KEYS. Raises BadRecord."""
    role = cast(Any, turn.role)  # the template judges roles
    if calls := given.get("tool_calls"):
        if turn.role != "assistant":
            raise BadRecord(
                "bad_shape", f"turn {number} is {shown(turn.role)} and has tool_calls; assistants call tools"
            )
        return CallMessage(role, turn.text, reasoning, _calls(calls, f"tool_calls of turn {number}"))
    if turn.role == "tool":
        names = (_text(given.get(name), f"{name} of turn {number}") for name in ("tool_call_id", "name"))
        return ResultMessage(role, turn.text, reasoning, *names)
    return Message(role, turn.text, reasoning)


def _tool(value: Any, where: str) -> dict[str, Any]:
    about = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("name"), str):
        raise BadRecord("bad_shape", f"{where} is {shown(value)}; {_SHAPE}")
    return value if "function" in value else {"type": "function", "function": value}


def _calls(values: Any, where: str) -> tuple[ToolCall, ...]:
    if not isinstance(values, list):
        raise BadRecord("bad_shape", f"{where} is {shown(values)}; a list of calls is needed")
    return tuple(_call(value, f"{where}[{number}]") for number, value in enumerate(values))


def _call(value: Any, where: str) -> ToolCall:
    about = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("name"), str) or not about["name"]:
        raise BadRecord("bad_shape", f"{where} is {shown(value)}; {{id, function: {{name, arguments}}}} is needed")
    given = about.get("arguments")
    arguments = _parsed(given, f"arguments of {where}") if isinstance(given, str) and given.strip() else given
    if arguments in NOTHING:
        arguments = {}
    if not isinstance(arguments, dict):
        raise BadRecord("bad_shape", f"arguments of {where} is {shown(given)}; an object, or its JSON, is needed")
    return ToolCall(about["name"], arguments, _text(value.get("id"), f"id of {where}"))


def _parsed(text: str, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRecord("bad_shape", f"{where} is {shown(text)}, which is no JSON: {error}") from None


def _text(value: Any, where: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise BadRecord("bad_shape", f"{where} is {shown(value)}; a string is needed")
