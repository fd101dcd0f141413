"""Reads the tools of a record and an assistant's calls of them. `turn_details.py` and `pipelines/training/` call it.

    {"tools": [{"type": "function", "function": {"name", "description", "parameters"}}, …], "messages": [
      {"role": "assistant", "content": null, "tool_calls": [{"id", "function": {"name", "arguments"}}, …]},
      {"role": "tool", "tool_call_id", "content"}, …]}

That is OpenAI's shape. `tools`, `tool_calls` and `arguments` may be JSON as text, as data sets with columns have them;
a call and a tool may lack the `function` around their fields.
"""

from typing import Any

import orjson

from pipelines.formats.records import NOTHING, BadRecord
from services.errors import shown
from services.wire.messages import ToolCall

_SHAPE = "{type: function, function: {name, description, parameters}} is needed"


def tools_of(value: Any) -> tuple[dict[str, Any], ...]:
    """The tools of a record. Raises BadRecord."""
    found = _parsed(value, "tools") if isinstance(value, str) and value.strip() else value
    if found in NOTHING:
        return ()
    if not isinstance(found, list):
        raise BadRecord("bad_shape", f"tools is {shown(found)}; a list of tools is needed")
    return tuple(_tool(tool, f"tools[{number}]") for number, tool in enumerate(found))


def _tool(value: Any, where: str) -> dict[str, Any]:
    about = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("name"), str):
        raise BadRecord("bad_shape", f"{where} is {shown(value)}; {_SHAPE}")
    return value if "function" in value else {"type": "function", "function": value}


def calls_of(value: Any, where: str) -> tuple[ToolCall, ...]:
    """The calls of a turn. Raises BadRecord."""
    values = _parsed(value, where) if isinstance(value, str) else value
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
    return ToolCall(about["name"], arguments, text_of(value.get("id"), f"id of {where}"))


def _parsed(text: str, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRecord("bad_shape", f"{where} is {shown(text)}, which is no JSON: {error}") from None


def text_of(value: Any, where: str) -> str:
    """An id or a name; empty if there is none. Raises BadRecord."""
    if value is None or isinstance(value, str):
        return value or ""
    raise BadRecord("bad_shape", f"{where} is {shown(value)}; a string is needed")
