"""Calls of tools as a grammar: which texts it has, for each way in which models frame their calls."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from services.errors import InvalidRequest
from services.grammar.calls import CallFrame, check_strict
from services.grammar.expressions import Grammar
from services.grammar.json_schema import MAX_SCHEMA_BYTES
from services.grammar.notations import LARK, written
from services.grammar.tagged import TaggedArguments
from services.tokens.call_families import FAMILIES, CallParser
from services.tokens.listed_calls import DIALECTS

BYTES = LLTokenizer("byte")
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}, "required": ["city"]}
FRAMES = {f"{family.name} {index}": frame for family in FAMILIES for index, frame in enumerate(family.frames)}
_INVOKED = '<｜DSML｜invoke name="NAME">\nARGS</｜DSML｜invoke>\n'
ONE = {
    "hermes 0": '<tool_call>\n{"name": "NAME", "arguments": ARGS}\n</tool_call>',
    "mistral 0": '[TOOL_CALLS][{"name": "NAME", "arguments": ARGS}]',
    "mistral 1": "[TOOL_CALLS]NAME[ARGS]ARGS",
    "mistral 2": "[TOOL_CALLS]NAME[CALL_ID]callid001[ARGS]ARGS",
    **{
        f"{name} {index}": one.replace("OPENING", listed.opening)
        for name, listed in DIALECTS.items()
        for index, one in enumerate(
            ('OPENING[{"name": "NAME", "arguments": ARGS}]', 'OPENING{"name": "NAME", "arguments": ARGS}')
        )
    },
    "cohere 0": '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "NAME", "parameters": ARGS}\n]',
    "cohere 1": '<|START_ACTION|>{"tool_call_id": "0", "tool_name": "NAME", "parameters": ARGS}',
    "command-r 0": 'Action:\n```json\n[\n    {\n        "tool_name": "NAME",\n        "parameters": ARGS\n    }\n]',
    "command-r 1": 'Action:\n```json\n{"tool_name": "NAME", "parameters": ARGS}',
    "qwen-coder 0": "<tool_call>\n<function=NAME>\nARGS</function>\n</tool_call>",
    "seed 0": "<seed:tool_call>\n<function=NAME>\nARGS</function>\n</seed:tool_call>",
    "glm 0": "<tool_call>NAME\nARGS</tool_call>",
    "hunyuan 0": "<tool_calls:opensource>\n<tool_call:opensource>NAME<tool_sep:opensource>\n"
    "ARGS</tool_call:opensource>\n</tool_calls:opensource>",
    "minimax 0": '<minimax:tool_call>\n<invoke name="NAME">\nARGS</invoke>\n</minimax:tool_call>',
    "llama 0": '{"type": "function", "name": "NAME", "parameters": ARGS}',
    "deepseek-3.2 0": "<｜DSML｜function_calls>\n" + _INVOKED + "</｜DSML｜function_calls>",
    "deepseek-4 0": "<｜DSML｜tool_calls>\n" + _INVOKED + "</｜DSML｜tool_calls>",
    "muse 0": '<atem:function_calls>\n<atem:invoke name="NAME">\nARGS</atem:invoke>\n</atem:function_calls>',
    "minicpm 0": '<function name="NAME">ARGS</function>',
    "kimi 0": "<|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>ARGS"
    "<|tool_call_end|><|tool_calls_section_end|>",
    "functionary 0": "<function=NAME>ARGS</function>",
    "solar 0": "<|tool_calls|><|tool_call:begin|>callid001<|tool_call:name|>NAME<|tool_call:args|>ARGS<|tool_call:end|>"
    "<|calls|>",
    "apertus 0": '<|tools_prefix|>[{"NAME": ARGS}]<|tools_suffix|>',
}


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in names]


def has(frame: CallFrame, text: str, *, several: bool = True) -> bool:
    begun = frame.begun(text)
    assert begun is not None
    return frame.grammar(tools("weather", "time"), ("weather",), several=several).matches(begun)


@pytest.mark.parametrize("name", ONE)
def test_a_growing_text_begins_its_calls_where_the_whole_text_does(name: str) -> None:
    """The search once began anew at each token: an answer of 60,000 tokens held its worker up for ten seconds."""
    frame, searched = FRAMES[name], 0
    text = ("" if name == "llama 0" else "so < [TOOL " * 200) + call(name, "time", '{"city": "Paris"}')
    for end in range(len(text) + 1):
        begun = frame.begun(text[:end], searched)
        assert begun == frame.begun(text[:end])
        searched = searched if begun else end
    assert begun
    if name != "llama 0":
        assert frame.begun(text + "so " * 500, len(text) + 1_500) is None, "what was searched is not searched again"


def call(frame: str, name: str, arguments: str) -> str:
    return ONE[frame].replace("NAME", name).replace("[ARGS]", "\0").replace("ARGS", arguments).replace("\0", "[ARGS]")


IN_JSON = [name for name, frame in FRAMES.items() if frame.tagged is None]
IN_TAGS = [name for name in FRAMES if name not in IN_JSON]


@pytest.mark.parametrize("frame", IN_JSON)
def test_a_call_names_an_offered_tool_and_a_strict_one_gets_arguments_of_its_schema(frame: str) -> None:
    found = FRAMES[frame]
    for name, arguments in (("weather", '{"city": "Paris"}'), ("time", '{"zone": [1]}'), ("time", "{}")):
        assert has(found, call(frame, name, arguments)), (name, arguments)
    for name, arguments in (("weather", "{}"), ("weather", '{"city": "London"}'), ("time", "[]"), ("wither", "{}")):
        assert not has(found, call(frame, name, arguments)), (name, arguments)


PLACE = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "of": {"type": "array", "items": {"type": "boolean"}},
        "as": {"const": "5"},
    },
    "required": ["city", "days"],
}
TEXTS = ("city", "unit", "as", "more")
PLACES: list[tuple[dict[str, str], bool]] = [
    ({"city": "Paris", "days": "3"}, True),
    ({"city": 'a "b"\n</div> </', "unit": "F", "days": "9", "of": "[true]"}, True),
    ({"city": "", "unit": "F", "days": "1"}, True),
    ({"city": "Paris", "days": "3", "as": "5"}, True),
    ({"city": "Paris"}, False),
    ({"days": "3", "city": "Paris"}, False),
    ({"city": "Paris", "unit": "K", "days": "3"}, False),
    ({"city": "Paris", "days": "10"}, False),
    ({"city": "Paris", "days": "3", "of": "[1]"}, False),
    ({"city": "Paris", "days": "3", "more": "x"}, False),
]


def argument(tags: TaggedArguments, key: str, value: str, *, is_text: bool) -> str:
    behind_key = tags.behind_key if is_text else tags.behind_other_key or tags.behind_key
    return f"{tags.before_key}{key}{behind_key}{value}{tags.behind_value}"


@pytest.mark.parametrize("frame", IN_TAGS)
@pytest.mark.parametrize(("values", "fits"), PLACES)
def test_arguments_in_tags_are_read_back_as_an_instance_of_the_schema(
    frame: str, values: dict[str, str], fits: bool
) -> None:
    found, family = FRAMES[frame], next(each for each in FAMILIES if each.name == frame.split()[0])
    tags = found.tagged
    assert tags is not None
    told = "\n".join(argument(tags, key, value, is_text=key in TEXTS) for key, value in values.items())
    text = ONE[frame].replace("NAME", "f").replace("ARGS", told + "\n")
    offered = [{"type": "function", "function": {"name": "f", "parameters": PLACE}}]
    strict, free = (found.grammar(offered, names, several=False) for names in (("f",), ()))
    begun = found.begun(text)
    assert begun is not None and strict.matches(begun) == fits and free.matches(begun)
    parser = CallParser(family, offered)
    arguments = "".join(piece.text for piece in [*parser.text(text), *parser.finish()] if piece.kind == "arguments")
    read = {key: value if key in TEXTS else json.loads(value) for key, value in values.items()}
    assert json.loads(arguments) == read
    matcher = LLMatcher(BYTES, LLMatcher.grammar_from_lark(written(strict, LARK)), log_level=0)
    ids = BYTES.tokenize_str(begun)
    assert (matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()) == fits


@pytest.mark.parametrize("frame", IN_TAGS)
@pytest.mark.parametrize(("kind", "json_text"), [("array", '["a TAG b"]'), ("object", '{"k": ["TAG", "\\"]TAG"]}')])
def test_a_closing_tag_within_json_ends_no_value(frame: str, kind: str, json_text: str) -> None:
    """The grammar of JSON has such a text, so a reader that stopped at the tag would break the promise of `strict`."""
    found, family = FRAMES[frame], next(each for each in FAMILIES if each.name == frame.split()[0])
    tags = found.tagged
    assert tags is not None
    value = json_text.replace("TAG", tags.behind_value.strip())
    parameters = {"type": "object", "properties": {"k": {"type": kind}}, "required": ["k"]}
    offered = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    told = argument(tags, "k", value, is_text=False) + "\n"
    text = ONE[frame].replace("NAME", "f").replace("ARGS", told)
    begun = found.begun(text)
    assert begun is not None and found.grammar(offered, ("f",), several=False).matches(begun)
    parser = CallParser(family, offered)
    pieces = [piece for character in text for piece in parser.text(character)]
    assert json.loads("".join(piece.text for piece in pieces if piece.kind == "arguments")) == {"k": json.loads(value)}


@given(st.lists(st.sampled_from(["<", "/", "</param", "</parameter>", "</", ">", "a", "parameter>", "\n"]), max_size=8))
def test_a_text_in_a_tag_is_any_without_its_closing_tag(words: list[str]) -> None:
    text = "".join(words)
    tags = TaggedArguments("<", ">", "</parameter>")
    found, _ = tags.of({"p": {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]}})
    assert Grammar(found["p"]).matches(f"<k>{text}</parameter>") == ("</parameter>" not in text)


@pytest.mark.parametrize(("text", "fits"), [("a <![CDATA[b]]>", True), ("<![CDATA[b]]>", False), ("", True)])
def test_a_text_that_would_be_read_as_a_quoted_one_is_not_written(text: str, *, fits: bool) -> None:
    tags = TaggedArguments("<", ">", "</p>", quote="<![CDATA[")
    found, _ = tags.of({"p": {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]}})
    assert Grammar(found["p"]).matches(f"<k>{text}</p>") is fits
    with pytest.raises(InvalidRequest, match="cannot be promised"):
        tags.of({"p": {"type": "object", "properties": {"k": {"const": "<![CDATA["}}}})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 3},
        {"anyOf": [{"type": "string"}, {"type": "object"}]},
        {},
        {"title": "Any"},
        {"enum": ["a", 1]},
    ],
)
def test_what_a_reader_of_tags_could_misread_is_refused_by_its_path(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"f\.properties\.a cannot be promised"):
        TaggedArguments("<", ">", "</p>").of({"f": {"type": "object", "properties": {"a": schema}}})


@pytest.mark.parametrize(("frame", "between"), [("hermes 0", "\n"), ("mistral 0", None), ("mistral 1", "")])
def test_further_calls_follow_only_where_several_are_wanted(frame: str, between: str | None) -> None:
    one = call(frame, "time", "{}")
    both = one[:-1] + ", " + one[13:] if between is None else one + between + one
    assert has(FRAMES[frame], both) and not has(FRAMES[frame], both, several=False)


def test_before_its_opening_an_answer_says_what_it_likes() -> None:
    assert FRAMES["hermes 0"].begun('{"name": "weather"') is None
    assert FRAMES["llama 0"].begun('So: {"name": "weather"') is None
    assert FRAMES["llama 0"].begun('{"name": "wea') == ' "wea'
    assert FRAMES["llama 0"].begun('I look.\n<|python_tag|>{"name": "wea') == ' "wea'


def test_the_schemas_of_all_strict_tools_are_bounded_together() -> None:
    check_strict({"tools.0": CITY})
    with pytest.raises(InvalidRequest, match="strict tools have"):
        check_strict({f"tools.{n}": {"description": "x" * (MAX_SCHEMA_BYTES // 2)} for n in range(2)})
    half: dict[str, Any] = {"enum": list(range(1_500))}
    with pytest.raises(InvalidRequest, match="more than 2,000 parts"):
        check_strict({"tools.0": half, "tools.1": half})
