"""Which types of JSON the arguments of tools may have, by their schemas: for families that write values without quotes.

`call_families.py` makes one for each answer; the parsers of such families turn values into JSON by it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

Types = frozenset[str]
"""Names of types as schemas have them; empty: unknown."""

_NO_TOOLS: Iterable[Mapping[str, Any]] = ()
_AS_PYTHON = {"True": "true", "False": "false", "None": "null"}  # some templates write these
_NAMES = {bool: "boolean", int: "integer", float: "number", dict: "object", list: "array", type(None): "null"}


class ArgumentTypes:
    """The types of each argument of each tool."""

    def __init__(self, tools: Iterable[Mapping[str, Any]] = _NO_TOOLS) -> None:
        schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in tools}
        self._properties = {name: schema.get("properties") for name, schema in schemas.items()}

    def of(self, tool: str, key: str) -> Types:
        properties = self._properties.get(tool)
        return _types(properties.get(key)) if isinstance(properties, Mapping) else frozenset()


def as_json(value: str, types: Types) -> str:
    """A value that was written without quotes, as JSON. What is no value of these types is a text."""
    word = _AS_PYTHON.get(value.strip(), value.strip())
    try:
        kind = _NAMES.get(type(orjson.loads(word)))
    except orjson.JSONDecodeError:
        kind = None
    fits = kind in types or (kind == "integer" and "number" in types)
    if kind is None or (types and "string" in types and not fits):
        return orjson.dumps(value).decode()
    return word


def _types(schema: object) -> Types:
    if not isinstance(schema, Mapping):
        return frozenset()
    for several in ("anyOf", "oneOf"):
        if isinstance(schema.get(several), list):
            found = [_types(each) for each in schema[several]]
            return frozenset().union(*found) if all(found) else frozenset()
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return frozenset(_NAMES.get(type(value), "string") for value in values)
    named = schema.get("type")
    return frozenset(each for each in (named if isinstance(named, list) else [named]) if isinstance(each, str))
