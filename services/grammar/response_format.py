"""The grammar of what a request says of its answer's form. `services.wire.parsing` checks with it, workers serve by it.

{"type": "json_object"}
{"type": "json_schema", "schema": {…}}
{"type": "regex", "regex": "…"}
{"type": "choice", "choice": ["…", …]}
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from services.errors import InvalidRequest, shown
from services.grammar.expressions import Expression, Grammar, Text, choice
from services.grammar.json_schema import MAX_SCHEMA_BYTES, json_object, json_schema
from services.grammar.patterns import whole_text

MAX_OPTIONS = 1_000
_FIELDS = {"json_object": "", "json_schema": "schema", "regex": "regex", "choice": "choice"}


def grammar_of(form: Mapping[str, Any], place: str = "") -> Grammar:
    """The grammar of a form. Raises InvalidRequest.

    `place`: the field in which schema, regex or choice were sent, for the message.
    """
    kind = form.get("type")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise InvalidRequest(
            f"response_format.type={shown(kind)} is not one of {', '.join(_FIELDS)}", field="response_format.type"
        )
    field = _FIELDS[kind]
    if set(form) - {"type", field}:
        raise InvalidRequest(f"response_format of type {kind} has {field or 'no field'} alone", field="response_format")
    place = place or f"response_format.{field}"
    try:
        written = orjson.dumps(form.get(field))
    except (orjson.JSONEncodeError, RecursionError):
        raise InvalidRequest(f"{place} is nested too deep", field=place) from None
    if len(written) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"{place} has {len(written):,} bytes; the limit is {MAX_SCHEMA_BYTES:,}", field=place)
    return _grammar(kind, written, place)


@lru_cache(maxsize=64)
def _grammar(kind: str, written: bytes, place: str) -> Grammar:
    """Asked for at the door and once more by a worker, often with the same schema."""
    value = orjson.loads(written)
    if kind == "json_object":
        return json_object()
    if kind == "json_schema":
        return json_schema(value, place)
    return Grammar(whole_text(_text(value, place), place) if kind == "regex" else _choice(value, place))


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{place} must be text", field=place)
    return value


def _choice(values: object, place: str) -> Expression:
    if (
        not isinstance(values, list)
        or not 0 < len(values) <= MAX_OPTIONS
        or not all(isinstance(each, str) and each for each in values)
    ):
        raise InvalidRequest(f"{place} must be a list of 1 to {MAX_OPTIONS} texts", field=place)
    return choice(map(Text, values))
