"""Writes a grammar as engines read it: EBNF for XGrammar (inside OpenVINO GenAI), Lark for llguidance."""

from collections.abc import Callable, Mapping
from functools import cache

from services.grammar.expressions import Characters, Choice, Expression, Grammar, Repeat, Rule, Sequence, Text

EBNF, LARK = "ebnf", "lark"
_RUN = 16  # XGrammar compiles each of 2,000 repetitions (minutes); of runs of 16 it compiles the run


def written(grammar: Grammar, notation: str) -> str:
    """The grammar as text. `notation` is EBNF or LARK."""
    return _WRITERS[notation](grammar)


def _ebnf(grammar: Grammar) -> str:
    return _EbnfWriter(grammar).text()


class _EbnfWriter:
    """Gives equal parts one rule. XGrammar compiles each rule once; a string written 200 times took it minutes."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._names: dict[Expression, str] = {}
        self._lines: list[str] = []

    def text(self) -> str:
        root = f"root ::= {self._of(self._grammar.root)}"
        named = [f"{name} ::= {self._of(rule)}" for name, rule in _used(self._grammar).items()]
        return "\n".join([root, *named, *self._lines]) + "\n"

    def _of(self, expression: Expression) -> str:
        match expression:
            case Text(text):
                return '"' + "".join(map(_escaped_for_ebnf, text)) + '"'
            case Characters(ranges):
                return f"[{''.join(_range(low, high, _escaped_for_ebnf) for low, high in ranges)}]"
            case Sequence(parts):
                return " ".join(map(self._of, parts)) if parts else '""'
            case Rule(name):
                return name
        return self._shared(expression)

    def _shared(self, expression: Choice | Repeat) -> str:
        if expression not in self._names:
            self._names[expression] = f"part{len(self._names)}"
            self._lines.append(f"{self._names[expression]} ::= {self._written(expression)}")
        return self._names[expression]

    def _written(self, expression: Choice | Repeat) -> str:
        if isinstance(expression, Choice):
            return " | ".join(map(self._of, expression.options))
        item, low, high = self._of(expression.item), expression.low, expression.high
        if high is None or high < 2 * _RUN:
            return f"({item}){_times(low, high)}"
        least, more = divmod(low, _RUN), divmod(high - low, _RUN)
        run = self._of(Repeat(expression.item, _RUN, _RUN))
        tail = more[1] + (_RUN if more[0] else 0)  # full runs alone would leave gaps between the numbers
        return f"({run}){_times(least[0], least[0] + max(more[0] - 1, 0))} ({item}){_times(least[1], least[1] + tail)}"


def _escaped_for_ebnf(character: str) -> str:
    code = ord(character)
    if character.isascii() and character.isalnum():
        return character
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _lark(grammar: Grammar) -> str:
    lines = [f"start: {_lark_of(grammar.root)}"]
    lines += [f"{name}: {_lark_of(rule)}" for name, rule in _used(grammar).items()]
    return "\n".join(lines) + "\n"


def _lark_of(expression: Expression) -> str:
    """What names no rule is one terminal: llguidance's lexer takes the longest, and has to see all of it."""
    if not _names_rules(expression):
        return _terminal(_regex(expression))
    match expression:
        case Sequence(parts):
            return " ".join(_lark_of(run) for run in _runs(parts))
        case Choice(options):
            return f"({' | '.join(map(_lark_of, options))})"
        case Repeat(item, low, high):
            return f"({_lark_of(item)}){_times(low, high)}"
        case Rule(name):
            return name
    raise AssertionError(f"{expression} names no rule")


def _runs(parts: tuple[Expression, ...]) -> list[Expression]:
    """The parts of a sequence, those between two that name rules as one."""
    runs: list[Expression] = []
    plain: list[Expression] = []
    for part in parts:
        if not _names_rules(part):
            plain.append(part)
            continue
        runs += [Sequence(tuple(plain)), part] if plain else [part]
        plain = []
    return [*runs, Sequence(tuple(plain))] if plain else runs


def _terminal(regex: str) -> str:
    return f"/{regex}/" if regex else '""'


def _regex(expression: Expression) -> str:
    match expression:
        case Text(text):
            return "".join(map(_escaped_for_regex, text))
        case Characters(ranges):
            return f"[{''.join(_range(low, high, _escaped_for_regex) for low, high in ranges)}]"
        case Sequence(parts):
            return "".join(map(_regex, parts))
        case Choice(options):
            return f"({'|'.join(map(_regex, options))})"
        case Repeat(item, low, high):
            return f"({_regex(item)}){_times(low, high)}"
        case Rule(name):
            raise AssertionError(f"the rule {name} is no terminal")


def _escaped_for_regex(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    return f"\\x{{{ord(character):x}}}"


def _range(low: int, high: int, escaped: Callable[[str], str]) -> str:
    return escaped(chr(low)) if low == high else f"{escaped(chr(low))}-{escaped(chr(high))}"


def _times(low: int, high: int | None) -> str:
    if (low, high) == (0, None):
        return "*"
    return f"{{{low},{'' if high is None else high}}}"


@cache
def _names_rules(expression: Expression) -> bool:
    match expression:
        case Rule():
            return True
        case Sequence(parts):
            return any(map(_names_rules, parts))
        case Choice(options):
            return any(map(_names_rules, options))
        case Repeat(item, _, _):
            return _names_rules(item)
    return False


def _used(grammar: Grammar) -> Mapping[str, Expression]:
    """The rules that the root needs."""
    used: dict[str, Expression] = {}
    names = _names(grammar.root)
    while names:
        name = names.pop()
        if name not in used:
            used[name] = grammar.rules[name]
            names |= _names(used[name])
    return used


def _names(expression: Expression) -> set[str]:
    match expression:
        case Rule(name):
            return {name}
        case Sequence(parts) | Choice(parts):
            return {name for part in parts for name in _names(part)}
        case Repeat(item, _, _):
            return _names(item)
    return set()


_WRITERS = {EBNF: _ebnf, LARK: _lark}
