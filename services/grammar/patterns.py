"""Regular expressions as expressions of a grammar: those of a schema's `pattern`, of `format`, and of a whole answer.

A pattern is read as JSON Schema says: it may match anywhere, unless `^` and `$` bind it to an end. Python's own parser
reads it; what has no meaning in a grammar (a look-around, a back-reference, a word boundary) is refused.
"""

import re
from collections.abc import Callable, Iterable
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from services.errors import InvalidRequest
from services.grammar.expressions import (
    EMPTY,
    Characters,
    Expression,
    Repeat,
    Text,
    choice,
    repeat,
    sequence,
)

Ranges = tuple[tuple[int, int], ...]

MAX_PATTERN_CHARS = 1_000
MAX_TIMES = 2_000
_SURROGATES = (0xD800, 0xDFFF)
_LAST = 0x10FFFF
_CATEGORIES: dict[Any, Ranges] = {
    kinds.CATEGORY_DIGIT: ((48, 57),),
    kinds.CATEGORY_WORD: ((48, 57), (65, 90), (95, 95), (97, 122)),
    kinds.CATEGORY_SPACE: ((9, 13), (32, 32)),
}
_OPPOSITES = {
    kinds.CATEGORY_NOT_DIGIT: kinds.CATEGORY_DIGIT,
    kinds.CATEGORY_NOT_WORD: kinds.CATEGORY_WORD,
    kinds.CATEGORY_NOT_SPACE: kinds.CATEGORY_SPACE,
}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_AT_START, _AT_END = (kinds.AT_BEGINNING, kinds.AT_BEGINNING_STRING), (kinds.AT_END, kinds.AT_END_STRING)


def _without(ranges: Iterable[tuple[int, int]], taken: Iterable[tuple[int, int]]) -> Ranges:
    left = list(ranges)
    for low, high in taken:
        left = [
            piece
            for start, end in left
            for piece in ((start, min(end, low - 1)), (max(start, high + 1), end))
            if piece[0] <= piece[1]
        ]
    return tuple(sorted(set(left)))


def plain_characters(ranges: Ranges) -> Expression | None:
    """One of these characters as it is; None if there is none."""
    return Characters(ranges) if ranges else None


def json_characters(ranges: Ranges) -> Expression | None:
    """One of these characters as it stands in a string of JSON; None if there is none."""
    special = [code for code in map(ord, _ESCAPES) if any(low <= code <= high for low, high in ranges)]
    plain = _without(ranges, [(0, 31), (34, 34), (92, 92)])
    options: list[Expression] = [Characters(plain)] if plain else []
    options += [Text(_ESCAPES[chr(code)]) for code in special]
    return choice(options) if options else None


ANY_RANGES: Ranges = ((0, _SURROGATES[0] - 1), (_SURROGATES[1] + 1, _LAST))
_any = json_characters(ANY_RANGES)
assert _any is not None
ANY_IN_JSON: Expression = _any


def pattern_in_json(pattern: str, place: str) -> Expression:
    """The texts of JSON strings, without their quotes, in which the pattern matches. Raises InvalidRequest."""
    reader = _Reader(json_characters, place)
    return choice(_anchored(reader, items) for items in _alternatives(_parsed(pattern, place)))


def whole_text(pattern: str, place: str) -> Expression:
    """The texts that the whole pattern matches. Raises InvalidRequest."""
    reader = _Reader(plain_characters, place)
    return choice(reader.sequence(_stripped(items)[0]) for items in _alternatives(_parsed(pattern, place)))


def _parsed(pattern: str, place: str) -> list[Any]:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise InvalidRequest(f"{place} has {len(pattern)} characters; the limit is {MAX_PATTERN_CHARS}", field=place)
    try:
        tree = parser.parse(pattern, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"{place} is no regular expression: {error}", field=place) from None
    if tree.state.flags & ~re.ASCII:
        raise InvalidRequest(f"{place} sets flags, which a grammar has not; leave them out", field=place)
    return list(tree)


def _alternatives(items: list[Any]) -> list[list[Any]]:
    """Of `a|b` each: every one may have anchors of its own."""
    if len(items) == 1 and items[0][0] is kinds.BRANCH:
        return [list(each) for each in items[0][1][1]]
    return [items]


def _stripped(items: list[Any]) -> tuple[list[Any], bool, bool]:
    """The items without the anchors at their ends, and whether there were some."""
    at_start = bool(items) and items[0][0] is kinds.AT and items[0][1] in _AT_START
    items = items[at_start:]
    at_end = bool(items) and items[-1][0] is kinds.AT and items[-1][1] in _AT_END
    return items[: len(items) - at_end], at_start, at_end


def _anchored(reader: "_Reader", items: list[Any]) -> Expression:
    inner, at_start, at_end = _stripped(items)
    around = Repeat(ANY_IN_JSON, 0, None)
    before, after = (EMPTY if at_start else around), (EMPTY if at_end else around)
    return sequence(before, reader.sequence(inner), after)


class _Reader:
    """Turns the tree of Python's parser into expressions."""

    def __init__(self, characters: Callable[[Ranges], Expression | None], place: str) -> None:
        self._characters = characters
        self._place = place

    def sequence(self, items: Iterable[Any]) -> Expression:
        return sequence(*[self._item(kind, value) for kind, value in items])

    def _item(self, kind: Any, value: Any) -> Expression:
        if kind is kinds.BRANCH:
            return choice(self.sequence(each) for each in value[1])
        if kind is kinds.SUBPATTERN:
            return self._group(*value)
        if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
            return self._repeat(*value)
        return self._one(kind, value)

    def _group(self, number: Any, added: int, removed: int, items: Any) -> Expression:
        if added or removed:
            raise self._refusal("sets flags in a group")
        return self.sequence(items)

    def _repeat(self, low: int, high: Any, items: Any) -> Expression:
        most = None if high is kinds.MAXREPEAT else int(high)
        if max(low, most or 0) > MAX_TIMES:
            raise self._refusal(f"repeats more than {MAX_TIMES} times")
        return repeat(self.sequence(items), low, most)

    def _one(self, kind: Any, value: Any) -> Expression:
        ranges = self._ranges(kind, value)
        found = self._characters(ranges)
        if found is None:
            raise self._refusal("asks for a character that no text can have here")
        return found

    def _ranges(self, kind: Any, value: Any) -> Ranges:
        if kind is kinds.LITERAL:
            return ((value, value),)
        if kind is kinds.NOT_LITERAL:
            return _without(ANY_RANGES, [(value, value)])
        if kind is kinds.ANY:
            return _without(ANY_RANGES, [(10, 10)])
        if kind is kinds.IN:
            return self._class(value)
        raise self._refusal(f"uses {str(kind).lower().replace('_', ' ')}, which a grammar cannot honour")

    def _class(self, items: list[Any]) -> Ranges:
        negated = items[0][0] is kinds.NEGATE
        taken: list[tuple[int, int]] = []
        for kind, value in items[negated:]:
            taken += self._member(kind, value)
        return _without(ANY_RANGES, taken) if negated else tuple(sorted(set(taken)))

    def _member(self, kind: Any, value: Any) -> Ranges:
        if kind is kinds.LITERAL:
            return ((value, value),)
        if kind is kinds.RANGE:
            return (tuple(value),)
        if value in _OPPOSITES:
            return _without(ANY_RANGES, _CATEGORIES[_OPPOSITES[value]])
        return _CATEGORIES[value]

    def _refusal(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"{self._place} {why}; write it without", field=self._place)
