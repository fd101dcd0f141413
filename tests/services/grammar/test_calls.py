"""Calls of tools as a grammar: which texts it has, for each way in which models frame their calls."""

from typing import Any

import pytest

from services.errors import InvalidRequest
from services.grammar.calls import CallFrame, check_strict
from services.grammar.json_schema import MAX_SCHEMA_BYTES
from services.tokens.call_families import FAMILIES

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}, "required": ["city"]}
FRAMES = {f"{family.name} {index}": frame for family in FAMILIES for index, frame in enumerate(family.frames)}
ONE = {
    "hermes 0": '<tool_call>\n{"name": "NAME", "arguments": ARGS}\n</tool_call>',
    "mistral 0": '[TOOL_CALLS][{"name": "NAME", "arguments": ARGS}]',
    "mistral 1": "[TOOL_CALLS]NAME[ARGS]ARGS",
    "mistral 2": "[TOOL_CALLS]NAME[CALL_ID]callid001[ARGS]ARGS",
    "llama 0": '{"type": "function", "name": "NAME", "parameters": ARGS}',
}


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in names]


def has(frame: CallFrame, text: str, *, several: bool = True) -> bool:
    begun = frame.begun(text)
    assert begun is not None
    return frame.grammar(tools("weather", "time"), ("weather",), several=several).matches(begun)


def call(frame: str, name: str, arguments: str) -> str:
    return ONE[frame].replace("NAME", name).replace("[ARGS]", "\0").replace("ARGS", arguments).replace("\0", "[ARGS]")


@pytest.mark.parametrize("frame", FRAMES)
def test_a_call_names_an_offered_tool_and_a_strict_one_gets_arguments_of_its_schema(frame: str) -> None:
    found = FRAMES[frame]
    for name, arguments in (("weather", '{"city": "Paris"}'), ("time", '{"zone": [1]}'), ("time", "{}")):
        assert has(found, call(frame, name, arguments)), (name, arguments)
    for name, arguments in (("weather", "{}"), ("weather", '{"city": "London"}'), ("time", "[]"), ("wither", "{}")):
        assert not has(found, call(frame, name, arguments)), (name, arguments)


@pytest.mark.parametrize(("frame", "between"), [("hermes 0", "\n"), ("mistral 0", None), ("mistral 1", "")])
def test_further_calls_follow_only_where_several_are_wanted(frame: str, between: str | None) -> None:
    one = call(frame, "time", "{}")
    both = one[:-1] + ", " + one[13:] if between is None else one + between + one
    assert has(FRAMES[frame], both) and not has(FRAMES[frame], both, several=False)


def test_before_its_opening_an_answer_says_what_it_likes() -> None:
    assert FRAMES["hermes 0"].begun('{"name": "weather"') is None
    assert FRAMES["llama 0"].begun('So: {"name": "weather"') is None
    assert FRAMES["llama 0"].begun('{"name": "wea') == ' "wea'


def test_the_schemas_of_all_strict_tools_are_bounded_together() -> None:
    check_strict({"tools.0": CITY})
    with pytest.raises(InvalidRequest, match="strict tools have"):
        check_strict({f"tools.{n}": {"description": "x" * (MAX_SCHEMA_BYTES // 2)} for n in range(2)})
    half: dict[str, Any] = {"enum": list(range(1_500))}
    with pytest.raises(InvalidRequest, match="more than 2,000 parts"):
        check_strict({"tools.0": half, "tools.1": half})
