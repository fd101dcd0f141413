"""Calls of tools as a grammar: each names a tool that was offered, and its arguments are an instance of that tool's
schema. `services/tokens/call_families.py` says how a family frames its calls, a worker's planner asks for the grammar.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from services.errors import InvalidRequest
from services.grammar.expressions import EMPTY, Expression, Grammar, Repeat, Rule, Text, choice, sequence
from services.grammar.json_schema import MAX_SCHEMA_BYTES, SPACE, any_object, json_schemas
from services.grammar.tagged import TaggedArguments

_CALL = Rule("call")
_MOST_CALLS = 16  # a weak model may call until its budget ends
_LONGEST_OPENING = 1_000  # behind the beginning of an answer; longer ones would be white space


@dataclass(frozen=True)
class CallFrame:
    """What stands around the names and arguments of calls. `~` is a little white space, or none.

    `opening` matches what begins the calls of an answer; the grammar follows it. `again` stands before each further
    call; None: there is one call.
    """

    opening: re.Pattern[str]
    name: str
    arguments: str
    end: str
    first: str = ""
    again: str | None = None
    last: str = ""
    tagged: TaggedArguments | None = None  # else they are an object of JSON

    def begun(self, text: str, searched: int = 0) -> str | None:
        """What a text has of its calls behind their opening; None while there is none.

        `searched`: so many characters at the beginning of the text hold no whole opening.
        """
        found = self.opening.match(text) or self.opening.search(text, max(0, searched - _LONGEST_OPENING))
        return text[found.end() :] if found else None

    def grammar(
        self, tools: Iterable[Mapping[str, Any]], strict: Collection[str], *, several: bool, only: str = ""
    ) -> Grammar:
        """The calls of these tools, or of one. The arguments of those in `strict` obey their schemas, others are any
        object. Raises InvalidRequest, with the path in the request, for a schema that its tags cannot hold."""
        schemas: list[tuple[str, str, Any]] = []
        for index, tool in enumerate(tools):
            name = tool["function"]["name"]
            if only in ("", name):
                schema = tool["function"]["parameters"] if name in strict else None
                schemas.append((name, f"tools.{index}.function.parameters", schema))
        return _grammar(self, orjson.dumps(schemas), several)


def check_strict(schemas: Mapping[str, Any]) -> None:
    """Raises InvalidRequest, with the path, for schemas of arguments that a grammar cannot promise. By their fields."""
    size = len(orjson.dumps(list(schemas.values())))
    if size > MAX_SCHEMA_BYTES:
        raise InvalidRequest(
            f"tools: the schemas of strict tools have {size:,} bytes; the limit is {MAX_SCHEMA_BYTES:,}", field="tools"
        )
    json_schemas(schemas)


@lru_cache(maxsize=64)
def _grammar(frame: CallFrame, named_schemas: bytes, several: bool) -> Grammar:
    """An application asks with the same tools again and again."""
    schemas: list[tuple[str, str, Any]] = orjson.loads(named_schemas)
    strict = {place: schema for _, place, schema in schemas if schema is not None}
    known, rules = frame.tagged.of(strict) if frame.tagged else json_schemas(strict)
    free = frame.tagged.open() if frame.tagged else any_object()
    named = [sequence(Text(name), _framed(frame.arguments), known.get(place, free)) for name, place, _ in schemas]
    call = sequence(_framed(frame.name), choice(named), _framed(frame.end))
    more: Expression = EMPTY
    if several and frame.again is not None:
        more = Repeat(sequence(_framed(frame.again), _CALL), 0, _MOST_CALLS - 1)
    root = sequence(_framed(frame.first), _CALL, more, _framed(frame.last))
    return Grammar(root, {**rules, _CALL.name: call})


def _framed(text: str) -> Expression:
    parts = [part for word in text.split("~") for part in (SPACE, Text(word))][1:]
    return sequence(*[part for part in parts if part != Text("")])
