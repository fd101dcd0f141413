"""The expressions of a grammar, and what is left of a grammar behind the text that an answer has so far.

`json_schema.py` and `patterns.py` build expressions; `notations.py` writes them for engines. A worker that takes an
answer over asks for the rest: an engine can begin a grammar, and none can be told where in a grammar it stands.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """Exactly these characters."""

    text: str


@dataclass(frozen=True)
class Characters:
    """One character of some ranges of code points, both ends included."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sequence:
    """One part after the other; without parts, the empty text."""

    parts: "tuple[Expression, ...]"


@dataclass(frozen=True)
class Choice:
    """One of these."""

    options: "tuple[Expression, ...]"


@dataclass(frozen=True)
class Repeat:
    """An item from `low` to `high` times; without `high`, any number of times."""

    item: "Expression"
    low: int
    high: int | None


@dataclass(frozen=True)
class Rule:
    """The expression that the grammar has under this name."""

    name: str


Expression = Text | Characters | Sequence | Choice | Repeat | Rule

EMPTY = Sequence(())
MANY = 16
MAX_STEPS, MAX_STEPS_PER_CHARACTER = 20_000, 150  # many times what a text needs that is read in one way


@dataclass(frozen=True)
class Grammar:
    """An expression, and the rules that it names."""

    root: Expression
    rules: Mapping[str, Expression] = field(default_factory=dict)

    def after(self, text: str) -> "Grammar | None":
        """What may follow this text; None if no text of the grammar begins so.

        Raises TooAmbiguous where a text can be read in so many ways that nobody can wait for it.
        """
        rest = _Rest(self.rules, MAX_STEPS + MAX_STEPS_PER_CHARACTER * len(text))
        root: Expression | None = self.root
        for character in text:
            if root is None:
                return None
            root = rest.after(root, character)
        return None if root is None else Grammar(root, self.rules)

    @property
    def may_end(self) -> bool:
        """Whether the empty text is one of the grammar's."""
        return _Rest(self.rules, 0).is_optional(self.root)

    def matches(self, text: str) -> bool:
        rest = self.after(text)
        return rest is not None and rest.may_end


class TooAmbiguous(Exception):
    """The rest of a grammar behind a text would take too long to find."""


class _Rest:
    """Finds what of an expression is left behind one character after the other, in a bounded number of steps."""

    def __init__(self, rules: Mapping[str, Expression], steps: int) -> None:
        self._rules = rules
        self._steps_left = steps

    def after(self, expression: Expression, character: str) -> Expression | None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise TooAmbiguous
        match expression:
            case Text(text):
                return _text(text[1:]) if text[:1] == character else None
            case Characters(ranges):
                return EMPTY if any(low <= ord(character) <= high for low, high in ranges) else None
            case Sequence(parts):
                return self._after_sequence(parts, character)
            case Choice(options):
                return _choice(self.after(option, character) for option in options)
            case Repeat(item, low, high):
                return self._after_repeat(item, low, high, character)
            case Rule(name):
                return self.after(self._rules[name], character)

    def _after_sequence(self, parts: tuple[Expression, ...], character: str) -> Expression | None:
        """A part that may be empty lets the next one begin, too."""
        found: list[Expression | None] = []
        for index, part in enumerate(parts):
            rest = self.after(part, character)
            if rest is not None:
                found.append(sequence(rest, *parts[index + 1 :]))
            if not self.is_optional(part):
                break
        return _choice(found)

    def _after_repeat(self, item: Expression, low: int, high: int | None, character: str) -> Expression | None:
        rest = self.after(item, character)
        if rest is None:
            return None
        return sequence(rest, repeat(item, max(low - 1, 0), None if high is None else high - 1))

    def is_optional(self, expression: Expression) -> bool:
        match expression:
            case Text(text):
                return not text
            case Characters():
                return False
            case Sequence(parts):
                return all(map(self.is_optional, parts))
            case Choice(options):
                return any(map(self.is_optional, options))
            case Repeat(item, low, _):
                return low == 0 or self.is_optional(item)
            case Rule(name):
                return self.is_optional(self._rules[name])


def sequence(*parts: Expression) -> Expression:
    """The parts, those of inner sequences among them."""
    flat: list[Expression] = []
    for part in parts:
        flat += part.parts if isinstance(part, Sequence) else (part,)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(options: Iterable[Expression]) -> Expression:
    """One of these, each named once. There must be one."""
    found = _choice(options)
    assert found is not None, "a choice without options"
    return found


def optional(item: Expression) -> Expression:
    return Repeat(item, 0, 1)


def repeat(item: Expression, low: int, high: int | None) -> Expression:
    if high == 0:
        return EMPTY
    return item if (low, high) == (1, 1) else Repeat(item, low, high)


def _text(text: str) -> Expression:
    return Text(text) if text else EMPTY


def _each_once(options: list[Expression]) -> list[Expression]:
    """A hash takes the whole expression, a comparison mostly its first difference, but of many each with each."""
    if len(options) > MANY:
        return list(dict.fromkeys(options))
    kept: list[Expression] = []
    for option in options:
        if option not in kept:
            kept.append(option)
    return kept


def _options(expression: Expression) -> "tuple[Expression, ...]":
    """Those of a choice; equal ones of two choices are one then."""
    return expression.options if isinstance(expression, Choice) else (expression,)


def _choice(options: Iterable[Expression | None]) -> Expression | None:
    found = [each for option in options if option is not None for each in _options(option)]
    kept = _each_once(found) if len(found) > 1 else found
    if not kept:
        return None
    return kept[0] if len(kept) == 1 else Choice(tuple(kept))
