"""Arguments in tags, `<parameter=key>value</parameter>`, as a grammar. `calls.py` asks for it.

A value has no quotes, so a text ends at its closing tag, which it cannot hold. A schema that a reader of such values
could misread, or whose texts have bounds, is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.errors import InvalidRequest
from services.grammar.expressions import (
    Characters,
    Expression,
    Repeat,
    Text,
    choice,
    optional,
    repeat,
    sequence,
)
from services.grammar.json_schema import SPACE, any_value, json_schemas

_MOST_KEYS = 32
_KEY = repeat(Characters(((45, 46), (48, 57), (65, 90), (95, 95), (97, 122))), 1, 64)
_BREAKS = ((9, 10), (13, 13))
_WORDS = frozenset({"type", "title", "description", "default", "examples", "deprecated"})
_OTHERWISE = frozenset({"$ref", "anyOf", "enum", "const"})
_SIMPLE = frozenset({"string", "null"})
_OF_OBJECTS = frozenset({"properties", "required", "additionalProperties"})
_ANY = "any"  # no type of JSON


@dataclass(frozen=True)
class TaggedArguments:
    """The tags of one argument. Between two arguments there may be white space.

    `behind_other_key`: what stands behind the key of a value that is no text, if it differs. What begins with `quote`
    may hold tags, so a text begins with no such character.
    """

    before_key: str
    behind_key: str
    behind_value: str
    behind_other_key: str = ""
    quote: str = ""

    def open(self) -> Expression:
        """Arguments of any names, with any texts; where tags tell values from texts, with any values, too."""
        argument = self._argument(_KEY, self.behind_key, self._text())
        if self.behind_other_key:
            argument = choice([argument, self._argument(_KEY, self.behind_other_key, any_value())])
        return repeat(argument, 0, _MOST_KEYS)

    def of(self, schemas: Mapping[str, Any]) -> tuple[dict[str, Expression], Mapping[str, Expression]]:
        """Those that are an instance of a schema, by its place, and the rules that they name. Raises InvalidRequest."""
        json_schemas(schemas)  # are they schemas at all, and small enough?
        for place, schema in schemas.items():
            if set(schema) & _OTHERWISE or schema.get("type", "object") != "object":
                raise self._refused(place)
        places = {
            f"{place}.properties.{key}": each
            for place, schema in schemas.items()
            for key, each in schema.get("properties", {}).items()
        }
        texts = {place: self._text_of(each, place) for place, each in places.items()}
        values, rules = json_schemas({place: each for place, each in places.items() if texts[place] is None})
        behind_other = self.behind_other_key or self.behind_key
        known = {
            place: (behind_other, values[place]) if text is None else (self.behind_key, text)
            for place, text in texts.items()
        }
        return {place: self._object(schema, place, known) for place, schema in schemas.items()}, rules

    def _object(self, schema: Mapping[str, Any], place: str, known: Mapping[str, tuple[str, Expression]]) -> Expression:
        """The arguments of a schema in its order. `known`: what stands behind a key, and the value."""
        parts: list[Expression] = []
        for key in schema.get("properties", {}):
            argument = self._argument(Text(key), *known[f"{place}.properties.{key}"])
            parts.append(argument if key in schema.get("required", []) else optional(argument))
        return sequence(*parts)

    def _argument(self, key: Expression, behind_key: str, value: Expression) -> Expression:
        return sequence(Text(self.before_key), key, Text(behind_key), value, Text(self.behind_value), SPACE)

    def _text_of(self, schema: object, place: str) -> Expression | None:
        """The texts of a schema for texts; None for one that has none."""
        if not isinstance(schema, Mapping) or not schema or "$ref" in schema:
            raise self._refused(place)
        if "enum" in schema or "const" in schema:
            return self._one_of(schema.get("enum", [schema.get("const")]), place)
        kinds = _kinds(schema)
        if _ANY in kinds:
            raise self._refused(place)
        if "string" not in kinds:
            return None
        if not kinds <= _SIMPLE or not _is_simple(schema):
            raise self._refused(place)
        return self._text()

    def _one_of(self, values: list[Any], place: str) -> Expression | None:
        if not any(isinstance(value, str) for value in values):
            return None
        if not all(isinstance(value, str) and self._holds(value) for value in values):
            raise self._refused(place)
        return choice(map(Text, values))

    def _refused(self, place: str) -> InvalidRequest:
        return InvalidRequest(
            f"{place} cannot be promised for arguments in tags, as this model writes them; leave strict out",
            field=place,
        )

    @property
    def _tag(self) -> str:
        return self.behind_value.strip()

    def _holds(self, value: str) -> bool:
        return self._tag not in value and not (self.quote and value.startswith(self.quote))

    def _text(self) -> Expression:
        """Any text that is read back as it was written."""
        if not self.quote:
            return self._without_tag()
        return optional(sequence(_but(self.quote[0]), self._without_tag()))

    def _without_tag(self) -> Expression:
        """Any text without the closing tag. The tag has one `<`: behind each in the text must not stand the rest."""
        rest = self._tag[1:]
        others = Repeat(_but("<"), 0, None)
        behind: Expression = optional(sequence(_but("<" + rest[-1]), others))
        for character in reversed(rest[:-1]):
            behind = optional(choice([sequence(_but("<" + character), others), sequence(Text(character), behind)]))
        return sequence(others, Repeat(sequence(Text("<"), behind), 0, None))


def _but(characters: str) -> Characters:
    """Any character but these, which are no control characters."""
    ranges = list(_BREAKS)
    for low, high in ((ord(" "), 0xD7FF), (0xE000, 0x10FFFF)):  # between them are halves of surrogate pairs
        for code in sorted(map(ord, characters)):
            if low <= code <= high:
                ranges += [(low, code - 1)] if code > low else []
                low = code + 1
        ranges.append((low, high))
    return Characters(tuple(ranges))


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """The types of its values; `any` where it says none."""
    options = schema.get("anyOf")
    if isinstance(options, list):
        return {kind for option in options if isinstance(option, Mapping) for kind in _kinds(option)}
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return {"string" if isinstance(value, str) else "other" for value in values}
    named = schema.get("type", "object" if set(schema) & _OF_OBJECTS else _ANY)
    return {str(each) for each in named} if isinstance(named, list) else {str(named)}


def _is_simple(schema: Mapping[str, Any]) -> bool:
    """Whether its texts have no bounds."""
    options = schema.get("anyOf")
    if isinstance(options, list):
        return set(schema) - _WORDS == {"anyOf"} and all(_is_simple(option) for option in options)
    return not set(schema) - _WORDS
