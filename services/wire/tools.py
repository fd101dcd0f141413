"""Parses what a request from untrusted JSON says of tools. `parsing.py` calls it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from services.errors import InvalidRequest, shown
from services.grammar.calls import check_strict
from services.wire.messages import ANY_TOOL, CallMessage, Message, ResultMessage, Tool, ToolCall

MAX_TOOLS = 128
MAX_CALLS = 128  # of one message
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}


def parse_tools(raw: object) -> tuple[Tool, ...]:
    """Tools as OpenAI describes functions, each with a description and parameters. Raises InvalidRequest."""
    if raw is None:
        return ()
    if not isinstance(raw, list | tuple) or len(raw) > MAX_TOOLS:
        raise InvalidRequest(f"tools must be a list of at most {MAX_TOOLS} tools", field="tools")
    tools = tuple(_tool(tool, f"tools.{index}") for index, tool in enumerate(raw))
    names = [tool["function"]["name"] for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise InvalidRequest(f"two tools have the name {twice!r}; give each its own", field="tools")
    return tools


def parse_strict_tools(raw: object, tools: Sequence[Tool]) -> tuple[str, ...]:
    """The names of the strict ones among tools that `parse_tools` has read from this. Raises InvalidRequest."""
    if not isinstance(raw, list | tuple):
        return ()
    strict = [index for index, tool in enumerate(raw) if tool["function"].get("strict")]
    functions = [tool["function"] for tool in tools]
    check_strict({f"tools.{index}.function.parameters": functions[index]["parameters"] for index in strict})
    return tuple(functions[index]["name"] for index in strict)


def parse_tool_choice(raw: object, tools: Sequence[Tool]) -> str:
    """`auto`, `required`, or `:` with the name of one of these tools. Raises InvalidRequest."""
    if raw in (None, "auto"):
        return "auto"
    if not tools:
        raise InvalidRequest("tool_choice is only allowed when tools are specified", field="tool_choice")
    if raw == ANY_TOOL:
        return ANY_TOOL
    names = [tool["function"]["name"] for tool in tools]
    if not isinstance(raw, str) or raw[:1] != ":" or raw[1:] not in names:
        told = shown(raw.removeprefix(":") if isinstance(raw, str) else raw)
        raise InvalidRequest(f"tool_choice names {told}, which is none of the tools", field="tool_choice")
    return raw


def parse_call_message(raw: Mapping[str, Any], where: str) -> CallMessage:
    """An assistant's message that calls tools. Its texts are checked. Raises InvalidRequest."""
    calls = raw["calls"]
    if raw["role"] != "assistant" or not isinstance(calls, list | tuple) or not 0 < len(calls) <= MAX_CALLS:
        raise InvalidRequest(f"{where}.calls must be a list of 1 to {MAX_CALLS} calls of an assistant")
    found = tuple(_call(call, f"{where}.calls.{index}") for index, call in enumerate(calls))
    return CallMessage("assistant", raw["content"], raw.get("reasoning", ""), found)


def parse_result_message(raw: Mapping[str, Any], where: str, before: Sequence[Message]) -> ResultMessage:
    """What a tool returned for a call that a message before made. Raises InvalidRequest."""
    calls = next((each.calls for each in reversed(before) if isinstance(each, CallMessage)), ())
    name = next((call.name for call in calls if call.identity == raw["call"]), "")
    if not name:
        raise InvalidRequest(
            f"{where} answers the call {shown(raw['call'])}, but the assistant's last tool_calls have none of that id",
            field=where,
        )
    return ResultMessage("tool", raw["content"], "", raw["call"], name)


def parse_arguments(raw: str, where: str) -> dict[str, Any]:
    """Arguments of a call, which clients send as JSON in a text; an empty text is none. Raises InvalidRequest."""
    try:
        arguments = orjson.loads(raw) if raw.strip() else {}
    except (ValueError, TypeError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"{where}={shown(raw)} is no JSON object; templates write one", field=where)
    return arguments


def _tool(raw: object, where: str) -> Tool:
    if not isinstance(raw, Mapping) or raw.get("type") != "function":
        kind = raw.get("type") if isinstance(raw, Mapping) else raw
        raise InvalidRequest(f"{where}.type={shown(kind)}: tools of type function are served", field=f"{where}.type")
    function = raw.get("function")
    if not isinstance(function, Mapping):
        raise InvalidRequest(f"{where}.function must be an object with a name", field=f"{where}.function")
    name = _name(function.get("name"), f"{where}.function.name")
    description, parameters = function.get("description") or "", function.get("parameters") or _NO_PARAMETERS
    if not isinstance(description, str):
        raise InvalidRequest(f"{where}.function.description must be text", field=f"{where}.function.description")
    if not isinstance(parameters, Mapping):
        place = f"{where}.function.parameters"
        raise InvalidRequest(f"{place} must be a JSON schema, an object", field=place)
    about = {"name": name, "description": description, "parameters": parameters}
    _check_json(about, where)
    return {"type": "function", "function": about}


def _call(raw: object, where: str) -> ToolCall:
    if not isinstance(raw, Mapping) or set(raw) != {"name", "arguments", "identity"}:
        raise InvalidRequest(f"{where} must be an object with name, arguments and identity")
    if not isinstance(raw["arguments"], Mapping):
        raise InvalidRequest(f"{where}.arguments must be an object, not {type(raw['arguments']).__name__}")
    if not isinstance(raw["identity"], str) or not 0 < len(raw["identity"]) <= 256:
        raise InvalidRequest(f"{where}.identity must be a text of 1 to 256 characters")
    _check_json(raw, where)
    return ToolCall(_name(raw["name"], f"{where}.name"), raw["arguments"], raw["identity"])


def _name(raw: object, where: str) -> str:
    if not isinstance(raw, str) or not _NAME.fullmatch(raw):
        raise InvalidRequest(
            f"{where}={shown(raw)} is no name of 1 to 128 letters, digits, dots, dashes and underscores", field=where
        )
    return raw


def _check_json(raw: Mapping[str, Any], where: str) -> None:
    try:
        orjson.dumps(raw)
    except (TypeError, ValueError) as error:  # half a surrogate pair, or nested too deeply
        raise InvalidRequest(f"{where} cannot be written as JSON: {error}", field=where) from None
