"""JSON schemas as grammars. Each text of the grammar is an instance of its schema; what a grammar cannot promise is
refused with its path, never dropped.

White space is bounded: behind a bracket, a comma or a colon comes none, one blank, or one line break with its
indentation. A model that may write blanks for ever fills its whole budget with them. Numbers are bounded alike.
An object has the properties that the schema names, in that order; others only where it names none.
"""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from services.errors import InvalidRequest, shown
from services.grammar.expressions import (
    EMPTY,
    Characters,
    Choice,
    Expression,
    Grammar,
    Repeat,
    Rule,
    Text,
    choice,
    optional,
    repeat,
    sequence,
)
from services.grammar.patterns import ANY_IN_JSON, MAX_TIMES, pattern_in_json
from services.grammar.ranges import whole_number

MAX_SCHEMA_BYTES = 32_768
MAX_DEPTH = 24
MAX_PARTS = 2_000  # schemas, values of an enum, long texts and patterns, each counted where it is used
_CHARS_OF_A_PART = 16
_MAX_INDENTATION = 32
_MAX_DIGITS = 15

_ANNOTATIONS = frozenset(
    ("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated")
)
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum"},
    "boolean": set(),
    "null": set(),
}
_TYPED = {keyword: kind for kind, keywords in _KEYWORDS.items() for keyword in keywords if kind != "number"}
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
_DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d)"
_ZONE = r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_OCTET = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?"
_FORMATS = {  # a part of what each allows: no day after the 29th but where all months have it
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}{_ZONE}$",
    "date-time": f"^{_DATE}T{_TIME}{_ZONE}$",
    "uuid": r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    "ipv4": rf"^{_OCTET}(\.{_OCTET}){{3}}$",
    "hostname": rf"^{_LABEL}(\.{_LABEL}){{0,4}}$",
    "email": rf"^[a-zA-Z0-9_+-]{{1,32}}(\.[a-zA-Z0-9_+-]{{1,32}}){{0,2}}@{_LABEL}(\.{_LABEL}){{1,3}}$",
}

SPACE = Choice(
    (EMPTY, Text(" "), sequence(Text("\n"), repeat(Text(" "), 0, _MAX_INDENTATION))),
)
_DIGIT = Characters(((48, 57),))
_NATURAL = choice([Text("0"), sequence(Characters(((49, 57),)), repeat(_DIGIT, 0, _MAX_DIGITS - 1))])
_INTEGER = sequence(optional(Text("-")), _NATURAL)
_SIGN = Characters(((43, 43), (45, 45)))
_FRACTION = sequence(
    optional(sequence(Text("."), repeat(_DIGIT, 1, _MAX_DIGITS))),
    optional(sequence(Characters(((69, 69), (101, 101))), optional(_SIGN), repeat(_DIGIT, 1, 2))),
)
_STRING = sequence(Text('"'), Repeat(ANY_IN_JSON, 0, None), Text('"'))
_LITERALS: list[Expression] = [Text("true"), Text("false"), Text("null")]

# Any value of JSON, for what a schema leaves open.
_VALUE, _OBJECT, _ARRAY = Rule("value"), Rule("object"), Rule("array")
_OPEN_RULES: dict[str, Expression] = {}


def json_object() -> Grammar:
    """Any object of JSON."""
    return Grammar(_OBJECT, _OPEN_RULES)


def any_object() -> Expression:
    """Any object of JSON, in a grammar that has the rules of `json_schemas`."""
    return _OBJECT


def any_value() -> Expression:
    """Any value of JSON, in such a grammar."""
    return _VALUE


def json_schemas(schemas: Mapping[str, object]) -> tuple[dict[str, Expression], Mapping[str, Expression]]:
    """The expressions of several schemas, each by its place, and the rules that all of them name. The limit of parts is
    for all together. Raises InvalidRequest, with the path."""
    rules, parts = dict(_OPEN_RULES), 0
    found: dict[str, Expression] = {}
    for place, schema in schemas.items():
        compiler = _Compiler(_checked(schema, place), place, rules, parts)
        found[place] = compiler.compile(schema, place, ())
        parts = compiler.parts
    return found, rules


def json_schema(schema: object, place: str) -> Grammar:
    """The texts that this schema allows. `place` is the field that has it. Raises InvalidRequest, with the path."""
    found, rules = json_schemas({place: schema})
    return Grammar(found[place], rules)


def _checked(schema: object, place: str) -> Mapping[str, Any]:
    if not isinstance(schema, Mapping):
        raise InvalidRequest(f"{place} must be an object, not {shown(schema)}", field=place)
    size = len(orjson.dumps(schema))
    if size > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"{place} has {size:,} bytes; the limit is {MAX_SCHEMA_BYTES:,}", field=place)
    return schema


def _between(open_: str, inner: Expression, close: str) -> Expression:
    return sequence(Text(open_), SPACE, inner, SPACE, Text(close))


def _listed(first: Expression, other: Expression, low: int, high: int | None) -> Expression:
    """From `low` to `high` items with commas between; `other` is an item behind a comma."""
    if high == 0:
        return EMPTY
    more = repeat(sequence(Text(","), SPACE, other), max(low - 1, 0), None if high is None else high - 1)
    whole = sequence(first, more)
    return whole if low else optional(whole)


def _named(name: Expression, value: Expression) -> Expression:
    return sequence(name, Text(":"), SPACE, value)


def _json_text(value: object) -> Expression:
    return Text(orjson.dumps(value).decode())


_OPEN_RULES["value"] = choice([_OBJECT, _ARRAY, _STRING, sequence(_INTEGER, _FRACTION), *_LITERALS])
_OPEN_RULES["object"] = _between("{", _listed(_named(_STRING, _VALUE), _named(_STRING, _VALUE), 0, None), "}")
_OPEN_RULES["array"] = _between("[", _listed(_VALUE, _VALUE, 0, None), "]")


class _Compiler:
    """One schema on its way to a grammar: its definitions, the rules so far, and how much was read."""

    def __init__(self, root: Mapping[str, Any], place: str, rules: dict[str, Expression], parts: int) -> None:
        self._root = root
        self._place = place
        self._level = -1  # of the schema that is being read; the root's is 0
        self._patterns: dict[str, Expression] = {}
        self.rules = rules
        self.parts = parts

    def compile(self, schema: object, place: str, within: tuple[str, ...]) -> Expression:
        """`within`: the references that led here; one that comes again is a recursion."""
        self._count(place)
        self._level += 1
        if self._level > MAX_DEPTH:
            raise InvalidRequest(f"{place} is nested deeper than {MAX_DEPTH} levels", field=place)
        expression = self._read(schema, place, within)
        self._level -= 1
        return expression

    def _read(self, schema: object, place: str, within: tuple[str, ...]) -> Expression:
        if schema is True:
            return _VALUE
        if not isinstance(schema, Mapping):
            raise InvalidRequest(f"{place}={shown(schema)} is no schema that an answer can have", field=place)
        if "$ref" in schema:
            return self._referred(schema, place, within)
        for keyword, read in (("const", self._const), ("enum", self._enum)):
            if keyword in schema:
                self._only(schema, place, {keyword, "type"})
                return read(schema[keyword], f"{place}.{keyword}")
        if "anyOf" in schema:
            return self._any_of(schema, place, within)
        return self._typed(schema, place, within)

    def _count(self, place: str, parts: int = 1) -> None:
        self.parts += parts
        if self.parts > MAX_PARTS:
            raise InvalidRequest(f"{self._place} has more than {MAX_PARTS:,} parts; ask for less", field=self._place)

    def _only(self, schema: Mapping[str, Any], place: str, known: set[str]) -> None:
        """Refuse a keyword that would be dropped."""
        for keyword in schema:
            if keyword not in known and keyword not in _ANNOTATIONS:
                raise InvalidRequest(
                    f"{place}.{keyword} cannot be promised here; leave it out", field=f"{place}.{keyword}"
                )

    def _referred(self, schema: Mapping[str, Any], place: str, within: tuple[str, ...]) -> Expression:
        self._only(schema, place, {"$ref"})
        name, place = schema["$ref"], f"{place}.$ref"
        if not isinstance(name, str) or not name.startswith("#/"):
            raise InvalidRequest(f"{place}={shown(name)} is no reference within the schema (`#/$defs/…`)", field=place)
        if name in within:
            raise InvalidRequest(f"{place}={shown(name)} is recursive, which is not served", field=place)
        found: Any = self._root
        for step in name[2:].split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or step not in found:
                raise InvalidRequest(f"{place}={shown(name)} is not in the schema", field=place)
            found = found[step]
        return self.compile(found, place, (*within, name))

    def _const(self, value: object, place: str) -> Expression:
        return self._enum([value], place)

    def _enum(self, values: object, place: str) -> Expression:
        if not isinstance(values, list) or not values:
            raise InvalidRequest(f"{place} must be a list with values", field=place)
        texts = [orjson.dumps(value).decode() for value in values]
        self._count(place, len(texts) + sum(map(len, texts)) // _CHARS_OF_A_PART)
        return choice(map(Text, texts))

    def _any_of(self, schema: Mapping[str, Any], place: str, within: tuple[str, ...]) -> Expression:
        self._only(schema, place, {"anyOf"})
        place = f"{place}.anyOf"
        options = schema["anyOf"]
        if not isinstance(options, list) or not options:
            raise InvalidRequest(f"{place} must be a list of schemas", field=place)
        return choice([self.compile(each, f"{place}.{index}", within) for index, each in enumerate(options)])

    def _typed(self, schema: Mapping[str, Any], place: str, within: tuple[str, ...]) -> Expression:
        kinds = self._kinds(schema, place)
        if not kinds:
            self._only(schema, place, set())
            return _VALUE
        self._only(schema, place, {"type"}.union(*[_KEYWORDS[kind] for kind in kinds]))
        return choice([self._of_kind(kind, schema, place, within) for kind in kinds])

    def _kinds(self, schema: Mapping[str, Any], place: str) -> list[str]:
        """The types that a schema names, or the one that its keywords are about; none if it says nothing."""
        named = schema.get("type")
        if named is None:
            about = {_TYPED[keyword] for keyword in schema if keyword in _TYPED}
            if about and about != {"object"}:
                raise InvalidRequest(f"{place}.type is missing", field=f"{place}.type")
            return sorted(about)
        kinds = named if isinstance(named, list) and named else [named]
        for index, kind in enumerate(kinds[: len(_KEYWORDS) + 1]):
            if not isinstance(kind, str) or kind not in _KEYWORDS or kind in kinds[:index]:
                wrong = "named twice" if kind in kinds[:index] else "no type of JSON"
                raise InvalidRequest(f"{place}.type={shown(kind)} is {wrong}", field=f"{place}.type")
        return kinds

    def _of_kind(self, kind: str, schema: Mapping[str, Any], place: str, within: tuple[str, ...]) -> Expression:
        if kind == "object":
            return self._object(schema, place, within)
        if kind == "array":
            return self._array(schema, place, within)
        if kind == "string":
            return self._string(schema, place)
        if kind in ("integer", "number"):
            return self._number(kind, schema, place)
        return Text("null") if kind == "null" else choice(_LITERALS[:2])

    # -- objects

    def _object(self, schema: Mapping[str, Any], place: str, within: tuple[str, ...]) -> Expression:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise InvalidRequest(f"{place}.properties must be an object", field=f"{place}.properties")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise InvalidRequest(f"{place}.required must be a list of names", field=f"{place}.required")
        if not properties and not required:
            return self._open_object(schema.get("additionalProperties", True), place, within)
        if missing := [name for name in required if name not in properties]:
            raise InvalidRequest(
                f"{place}.required names {shown(missing[0])}, which is no property", field=f"{place}.required"
            )
        members = [
            (_named(_json_text(name), self.compile(each, f"{place}.properties.{name}", within)), name in required)
            for name, each in properties.items()
        ]
        return _between("{", self._members(members), "}")

    def _open_object(self, others: object, place: str, within: tuple[str, ...]) -> Expression:
        if others is False:
            return _between("{", EMPTY, "}")
        value = self.compile(others, f"{place}.additionalProperties", within)
        return _between("{", _listed(_named(_STRING, value), _named(_STRING, value), 0, None), "}")

    def _members(self, members: list[tuple[Expression, bool]]) -> Expression:
        """Members in their order, a comma before each but the first. Shared ends are rules of their own."""
        behind: Expression = EMPTY
        alone: Expression = EMPTY  # what follows where no member came
        for member, required in reversed(members):
            with_comma = sequence(Text(","), SPACE, member)
            first = sequence(member, behind)
            alone = first if required else choice([first, alone])
            behind = sequence(with_comma if required else optional(with_comma), behind)
            if not required:
                alone, behind = self._rule(alone), self._rule(behind)
        return alone

    def _rule(self, expression: Expression) -> Expression:
        if isinstance(expression, Rule):
            return expression
        name = f"r{len(self.rules)}"
        self.rules[name] = expression
        return Rule(name)

    # -- arrays and scalars

    def _array(self, schema: Mapping[str, Any], place: str, within: tuple[str, ...]) -> Expression:
        if "prefixItems" in schema:
            return self._tuple(schema, place, within)
        low, high = self._bounds(schema, place, "minItems", "maxItems")
        if schema.get("items") is False:
            return _between("[", EMPTY, "]")
        item = self.compile(schema.get("items", True), f"{place}.items", within)
        return _between("[", _listed(item, item, low, high), "]")

    def _tuple(self, schema: Mapping[str, Any], place: str, within: tuple[str, ...]) -> Expression:
        """`prefixItems`: exactly these."""
        items, path = schema["prefixItems"], f"{place}.prefixItems"
        if not isinstance(items, list) or not items:
            raise InvalidRequest(f"{path} must be a list of schemas", field=path)
        low, high = self._bounds(schema, place, "minItems", "maxItems")
        if not low <= len(items) <= (len(items) if high is None else high):
            raise InvalidRequest(f"{path} has {len(items)} items, which minItems and maxItems forbid", field=path)
        read = [self.compile(each, f"{path}.{index}", within) for index, each in enumerate(items)]
        parts = [part for each in read for part in (Text(","), SPACE, each)]
        return _between("[", sequence(*parts[2:]), "]")

    def _string(self, schema: Mapping[str, Any], place: str) -> Expression:
        low, high = self._bounds(schema, place, "minLength", "maxLength")
        told = [name for name in ("pattern", "format") if name in schema]
        if not told:
            return sequence(Text('"'), repeat(ANY_IN_JSON, low, high), Text('"'))
        where = f"{place}.{told[0]}"
        if len(told) > 1 or (low, high) != (0, None):
            raise InvalidRequest(f"{where} cannot be promised beside another bound of the string", field=where)
        pattern = self._pattern(schema, told[0], where)
        if pattern not in self._patterns:
            self._count(where, len(pattern) // _CHARS_OF_A_PART)
            self._patterns[pattern] = pattern_in_json(pattern, where)
        return sequence(Text('"'), self._patterns[pattern], Text('"'))

    def _pattern(self, schema: Mapping[str, Any], keyword: str, place: str) -> str:
        value = schema[keyword]
        if not isinstance(value, str):
            raise InvalidRequest(f"{place} must be text", field=place)
        if keyword == "pattern":
            return value
        if value not in _FORMATS:
            raise InvalidRequest(f"{place}={shown(value)} is not one of {', '.join(_FORMATS)}", field=place)
        return _FORMATS[value]

    def _number(self, kind: str, schema: Mapping[str, Any], place: str) -> Expression:
        bounds = {name: schema[name] for name in _KEYWORDS["integer"] if name in schema}
        for name, value in bounds.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidRequest(f"{place}.{name}={shown(value)} is no number", field=f"{place}.{name}")
        if kind == "number":
            return self._real(bounds, place)
        most = 10**_MAX_DIGITS - 1
        low = max(math.ceil(bounds.get("minimum", -most)), math.floor(bounds.get("exclusiveMinimum", -most - 1)) + 1)
        high = min(math.floor(bounds.get("maximum", most)), math.ceil(bounds.get("exclusiveMaximum", most + 1)) - 1)
        if not -most <= low <= high <= most:
            raise InvalidRequest(
                f"{place}: no whole number of up to {_MAX_DIGITS} digits is in these bounds", field=place
            )
        return whole_number(low, high)

    def _real(self, bounds: Mapping[str, Any], place: str) -> Expression:
        if set(bounds) - {"minimum"} or bounds.get("minimum", 0) != 0:
            raise InvalidRequest(f"{place}: of a number only `minimum: 0` can be promised; use integer", field=place)
        return sequence(_NATURAL if bounds else _INTEGER, _FRACTION)

    def _bounds(self, schema: Mapping[str, Any], place: str, least: str, most: str) -> tuple[int, int | None]:
        for name in (least, most):
            value = schema.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TIMES:
                where = f"{place}.{name}"
                raise InvalidRequest(f"{where}={shown(value)} is no whole number from 0 to {MAX_TIMES}", field=where)
        low, high = schema.get(least, 0), schema.get(most)
        if high is not None and low > high:
            raise InvalidRequest(f"{place}.{least} is more than {most}", field=f"{place}.{least}")
        return low, high
