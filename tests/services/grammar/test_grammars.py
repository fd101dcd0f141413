"""Which texts a grammar has, what is left of it behind a text, and which schemas are refused by their path."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from services.errors import InvalidRequest
from services.grammar.expressions import Grammar, TooAmbiguous
from services.grammar.json_schema import MAX_DEPTH, json_object, json_schema
from services.grammar.notations import EBNF, LARK, written
from services.grammar.patterns import whole_text
from services.grammar.ranges import whole_number
from services.grammar.response_format import grammar_of

STRING = {"type": "string"}


def schema(**told: Any) -> Grammar:
    return json_schema(told, "schema")


def has(grammar: Grammar, value: object) -> bool:
    return grammar.matches(json.dumps(value, ensure_ascii=False))


JSON_OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from([0.5, -2.25]) | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


@given(JSON_OBJECTS)
def test_any_object_is_one_and_what_follows_any_beginning_is_its_rest(value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if "\\u" in text:  # a control character, which no grammar here writes
        return
    for cut in range(len(text) + 1):
        rest = json_object().after(text[:cut])
        assert rest is not None and rest.matches(text[cut:])
        assert rest.may_end == (cut == len(text))


@given(st.integers(-1500, 1500), st.integers(0, 1500), st.integers(-3200, 3200))
def test_a_range_has_exactly_its_whole_numbers(low: int, width: int, number: int) -> None:
    assert Grammar(whole_number(low, low + width)).matches(str(number)) == (low <= number <= low + width)


def test_an_object_has_its_properties_in_their_order_and_the_optional_ones_or_not() -> None:
    grammar = schema(type="object", properties={"a": STRING, "b": {"type": "integer"}, "c": {}}, required=["b"])
    for value in ({"b": 1}, {"a": "", "b": 1}, {"b": 1, "c": [None]}, {"a": "x", "b": -7, "c": {"d": 1.5}}):
        assert has(grammar, value)
    for value in ({}, {"a": "x"}, {"b": "1"}, {"b": 1, "a": "x"}, {"b": 1, "d": 1}):
        assert not has(grammar, value)
    empty = schema(type="object", properties={"a": STRING, "b": STRING})
    assert all(has(empty, value) for value in ({}, {"a": ""}, {"b": ""}, {"a": "", "b": ""}))


@pytest.mark.parametrize(
    ("told", "good", "bad"),
    [
        ({"enum": ["é", 1, None]}, ["é", 1, None], ["e", 2, True]),
        ({"const": {"a": [1]}}, [], [{}]),
        ({"anyOf": [STRING, {"type": "null"}]}, ["x", None], [1]),
        ({"type": ["boolean", "null"]}, [True, None], ["", 0]),
        ({"type": "array", "items": STRING, "minItems": 1, "maxItems": 2}, [["a"], ["a", "b"]], [[], ["a"] * 3, [1]]),
        ({"type": "array", "prefixItems": [STRING, {"type": "null"}]}, [["a", None]], [["a"], [None, "a"]]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"\n', "äöü"], ["a", "abcd"]),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 12}, [1, 12], [0, 13, -1]),
        ({"type": "number", "minimum": 0}, [0, 1.5], [-1, "1"]),
        ({"type": "object", "additionalProperties": {"type": "null"}}, [{}, {"x": None}], [{"x": 1}]),
        ({"type": "string", "format": "date"}, ["2026-11-29"], ["2026-13-01", "2026-02-30"]),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, [None], [1]),
    ],
)
def test_a_schema_has_its_instances_alone(told: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    grammar = json_schema(told, "schema")
    assert [has(grammar, value) for value in good] == [True] * len(good)
    assert [has(grammar, value) for value in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("b+", ["b", "abba", '"b"'], ["", "a"]),
        ("^b", ["b", "ba"], ["ab"]),
        ("b$", ["b", "ab"], ["ba"]),
        ("^(ab|c)?$", ["", "ab", "c"], ["a", "abc"]),
        ("^a|b$", ["ax", "xb"], ["xax"]),
        (r'^["\\]\d[^a-y]$', ['"1z', "\\9\n"], ['"az', "11z"]),
    ],
)
def test_a_pattern_may_match_anywhere_unless_it_is_anchored(pattern: str, good: list[str], bad: list[str]) -> None:
    grammar = schema(type="string", pattern=pattern)
    assert [has(grammar, text) for text in good] == [True] * len(good)
    assert [has(grammar, text) for text in bad] == [False] * len(bad)


def test_white_space_and_numbers_have_an_end() -> None:
    grammar = json_object()
    assert grammar.after('{\n    "a": ') and grammar.after('{ "a":1')
    for endless in ("{   ", "{\n\n\n", '{"a":\t', "{\n" + " " * 40, '{"a":1' + "0" * 20, '{"a":0.' + "1" * 20):
        assert grammar.after(endless) is None


NESTED: Any = STRING
for _ in range(MAX_DEPTH + 1):
    NESTED = {"type": "array", "items": NESTED}


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"type": "object", "properties": {"a": {"oneOf": []}}}, "schema.properties.a.oneOf"),
        ({"type": "array", "items": {"type": "text"}}, "schema.items.type"),
        ({"type": "string", "pattern": "(?=a)b"}, "schema.pattern"),
        ({"type": "string", "pattern": "("}, "schema.pattern"),
        ({"type": "string", "pattern": "a{3000}"}, "schema.pattern"),
        ({"type": "string", "format": "color"}, "schema.format"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "schema.minLength"),
        ({"type": "number", "maximum": 3}, "schema.maximum"),
        ({"type": "integer", "multipleOf": 3}, "schema.multipleOf"),
        ({"type": "array", "uniqueItems": True}, "schema.uniqueItems"),
        ({"type": "object", "properties": {"a": False}}, "schema.properties.a"),
        ({"type": "object", "required": ["a"]}, "schema.required"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "schema.$ref.anyOf.0.$ref"),
        ({"$ref": "https://example.org/s"}, "schema.$ref"),
        ({"enum": []}, "schema.enum"),
        ({"enum": list(range(3000))}, "schema"),
        ({"description": "x" * 40_000}, "schema"),
        ({"minLength": 3}, "schema.type"),
        (NESTED, "schema" + ".items" * (MAX_DEPTH + 1)),
    ],
)
def test_what_a_grammar_cannot_promise_is_refused_by_its_path(told: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        json_schema(told, "schema")
    assert refused.value.field == field
    assert field in refused.value.message


@pytest.mark.parametrize("name", ["a", "a.b", "." * 30])
def test_levels_are_counted_and_not_the_dots_of_names(name: str) -> None:
    """An object with a property called `v1.2.3.…` was refused as too deep, and twelve objects counted as 24 levels."""
    told: dict[str, Any] = STRING
    for _ in range(MAX_DEPTH):
        told = {"type": "object", "properties": {name: told}, "required": [name]}
    assert json_schema(told, "schema.of.a.field")
    with pytest.raises(InvalidRequest, match="nested deeper"):
        json_schema({"type": "array", "items": told}, "schema.of.a.field")


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"type": "xml"},
        {"type": "json_object", "schema": {}},
        {"type": "regex", "regex": 1},
        {"type": "choice", "choice": []},
    ],
)
def test_a_form_that_nobody_knows_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="response_format"):
        grammar_of(form)


def test_a_grammar_is_kept_for_the_next_request_that_has_its_schema() -> None:
    form = {"type": "json_schema", "schema": {"type": "object", "properties": {"a": STRING}}}
    assert grammar_of(form) is grammar_of(json.loads(json.dumps(form)))


BYTES = LLTokenizer("byte")
MANY_OPTIONAL = schema(type="object", properties={f"k{n}": {"enum": ["x", "é\n"]} for n in range(4)})


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (json_object(), '{"a": [1, {"b\\n": null}], "c": -1.5e3}'),
        (MANY_OPTIONAL, '{"k1":"é\\n","k3":"x"}'),
        (schema(type="string", maxLength=100), '"' + "ä" * 100 + '"'),
        (schema(type="string", pattern="b[^-x]"), '"a-b/\\"b-"'),
        (Grammar(whole_text("[]^\\-]{2}(a|)", "regex")), "]-a"),
    ],
)
def test_llguidance_reads_a_grammar_as_it_is_meant(grammar: Grammar, text: str) -> None:
    for cut in (0, len(text) // 2, len(text)):
        rest = grammar.after(text[:cut])
        assert rest is not None
        matcher = LLMatcher(BYTES, LLMatcher.grammar_from_lark(written(rest, LARK)), log_level=0)
        ids = BYTES.tokenize_str(text[cut:])
        assert matcher.try_consume_tokens(ids) == len(ids), matcher.get_error()
        assert matcher.is_accepting()


@pytest.mark.parametrize("regex", ["(a{0,50}){0,50}b", "((a{0,20}){0,20}){0,20}", "((a?b?){30}){30}"])
def test_nested_repeats_have_a_rest_in_bounded_steps(regex: str) -> None:
    """What was left doubled with each character, and the worker stood still at a takeover."""
    grammar = Grammar(whole_text(regex, "regex"))
    assert grammar.after("a" * 12) is not None
    with pytest.raises(TooAmbiguous):
        grammar.after("a" * 200)


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"type": ["integer"] * 1_200}, "schema.type"),
        ({"type": "array", "items": {"const": "x" * 30_000}, "prefixItems": [{"const": "x" * 1_000}] * 9}, "schema"),
    ],
)
def test_a_small_schema_cannot_ask_for_much(told: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        json_schema(told, "schema")
    assert refused.value.field == field


def test_a_long_list_of_choices_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="bytes; the limit is"):
        grammar_of({"type": "choice", "choice": [f"{number}" * 300 for number in range(100)]})


def test_equal_parts_are_written_once() -> None:
    """XGrammar took 49 s to compile 200 strings of one schema, each written out."""
    text = written(schema(type="object", properties={f"k{n}": STRING for n in range(50)}, required=["k0"]), EBNF)
    assert text.count("\\ud7ff") == 1
