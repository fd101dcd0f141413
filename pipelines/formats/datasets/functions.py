"""Datasets of function calls. `foreign.py` calls it.

    Glaive {"system": "SYSTEM: … functions …", "chat": "USER: … ASSISTANT: … <functioncall> {…} FUNCTION RESPONSE: …"}
    xLAM   {"query", "answers": "[{name, arguments}]", "tools": "[…]"}

Calls become `tool_calls` of the answer, results turns of the role `tool`, as OpenAI writes them.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from pipelines.formats.records import BadRecord
from pipelines.formats.translation import Format, Record, each, message, parsed, without
from services.errors import shown

SPEAKERS = re.compile(r"\s*(USER|ASSISTANT|FUNCTION RESPONSE):\s*")
CALL = re.compile(r"(.*?)<functioncall>\s*(\{.*\})", re.DOTALL)
QUOTED_ARGUMENTS = re.compile(r"\"arguments\":\s*'(.*)'\s*\}\s*\Z", re.DOTALL)
FUNCTIONS = re.compile(r"\{\s*\"name\"")
END = "<|endoftext|>"


def _glaive(record: Record) -> dict[str, Any]:
    system = str(record.get("system") or "").removeprefix("SYSTEM:").strip()
    first, *rest = SPEAKERS.split(record["chat"])
    if first.strip() or not rest:
        raise BadRecord("bad_shape", f"chat begins with {shown(first)}; USER: is needed")
    said = [_spoken(who, text) for who, text in zip(rest[::2], rest[1::2], strict=True)]
    system, tools = _tools(system)
    about = {**without(record, "system", "chat"), **({"tools": tools} if tools else {})}
    return {**about, "messages": [message("system", system), *said] if system else said}


def _spoken(who: str, text: str) -> dict[str, Any]:
    text = text.replace(END, "").strip()
    if who == "USER":
        return message("user", text)
    if who == "FUNCTION RESPONSE":
        return message("tool", text)
    call = CALL.match(text)
    return message("assistant", call[1].strip(), tool_calls=[_call(call[2])]) if call else message("assistant", text)


def _call(text: str) -> dict[str, Any]:
    """Glaive writes the arguments as JSON in single quotes inside the JSON of the call."""
    quoted = QUOTED_ARGUMENTS.search(text)
    arguments = quoted[1] if quoted else ""
    try:
        call = orjson.loads(text[: quoted.start()].rstrip().rstrip(",") + "}" if quoted else text)
        given = orjson.loads(arguments) if quoted else call.get("arguments", {})
    except (orjson.JSONDecodeError, AttributeError):
        raise BadRecord("bad_shape", f"the function call {shown(text)} is no JSON") from None
    return {"type": "function", "function": {"name": call.get("name"), "arguments": given}}


def _tools(system: str) -> tuple[str, list[Any]]:
    """The functions that stand as JSON at the end of the system's text, and the text before them."""
    found = FUNCTIONS.search(system)
    if not found:
        return system, []
    try:
        tools = list(_values(system[found.start() :]))
    except orjson.JSONDecodeError:
        return system, []
    before = system[: found.start()].strip()
    return before.removesuffix("Use them if required -").rstrip(), tools


def _values(text: str) -> Iterator[Any]:
    """JSON values one after another: each ends at a line that is a closing brace."""
    for value in re.split(r"(?<=\n\})\s+(?=\{)", text.strip()):
        yield {"type": "function", "function": orjson.loads(value)}


def _xlam(record: Record) -> dict[str, Any]:
    calls = parsed(record["answers"])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise BadRecord("bad_shape", f"answers is {shown(calls)}; a list of calls is needed")
    functions = [{"type": "function", "function": call} for call in calls]
    said = [message("user", record["query"]), message("assistant", "", tool_calls=functions)]
    return {**without(record, "query", "answers"), "tools": parsed(record.get("tools")), "messages": said}


FORMATS = (
    Format("a Glaive record", lambda record: isinstance(record.get("chat"), str), each(_glaive)),
    Format("an xLAM record", lambda record: "query" in record and "answers" in record, each(_xlam)),
)
