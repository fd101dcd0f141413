"""Reads a model's text for calls of tools while it comes. The parser of each family (`hermes_calls.py`, …) drives it.

A parser is a generator: it yields where it needs more text. So what it finds depends on the characters alone, never on
how the text was cut. A call is told as two pieces: its name (`call`), then its arguments (`arguments`), as they come.
What is no call after all stays text of the answer, with its marks.
"""

import json
from collections.abc import Callable, Generator
from typing import TypeVar

from services.tokens.argument_types import ArgumentTypes
from services.tokens.pieces import Piece

T = TypeVar("T")
Reading = Generator[None, None, T]

_SPACES = " \t\r\n"
_OUTSIDE_STRINGS = frozenset(_SPACES + '{}[],:"+-.0123456789eEtrufalsn')  # all else is no JSON
_NAME_KEYS = frozenset({"name", "tool_name"})
_ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
_OTHER_KEYS = frozenset({"id", "type", "tool_call_id"})


class Broken(Exception):
    """What was read is no call."""


class CallText:
    """The text that a parser reads, and the pieces that it makes of it."""

    def __init__(self, types: ArgumentTypes) -> None:
        self.types = types
        self.pieces: list[Piece] = []
        self.num_calls = 0
        self._calls_before = 0  # so many stood before the mark that was said last
        self.num_whole = 0  # of the calls
        self.ran_out = False  # whether the last word that was not found might have come if the text had gone on
        self._text = ""
        self._at = 0
        self._ended = False
        self._checkpoint = 0

    def put(self, text: str) -> None:
        self._text = self._text[self._checkpoint :] + text
        self._at -= self._checkpoint
        self._checkpoint = 0

    def end(self) -> None:
        """No text follows."""
        self._ended = True

    # -- text of the answer --------------------------------------------------------------------------------------

    def said(self, marks: tuple[str, ...]) -> Reading[str]:
        """Tell text up to the next of these marks, and take the mark; empty at the end of the text.

        White space before a mark, and behind the last call, belongs to the calls.
        """
        while True:
            found = min(((at, mark) for mark in marks if (at := self._text.find(mark, self._at)) >= 0), default=None)
            if found is not None:
                at, mark = found
                self._tell(len(self._text[:at].rstrip()))
                self._at = at + len(mark)
                self._calls_before = self.num_calls
                return mark
            if self._ended:
                self._tell(len(self._text))
                return ""
            self._tell(len(self._text[: self._certain(marks)].rstrip()))
            yield

    def restore(self, mark: str) -> None:
        """Read again what follows the mark that began broken calls. The white space before it and the mark are told,
        unless a call was told behind it."""
        if self.num_calls > self._calls_before:
            self.go_back()
            return
        end = self._text.index(mark, self._checkpoint) + len(mark)
        self._at = self._checkpoint
        self._tell(end)

    def _certain(self, marks: tuple[str, ...]) -> int:
        """How much of the text is no beginning of a mark."""
        longest = max(map(len, marks))
        for start in range(max(self._at, len(self._text) - longest + 1), len(self._text)):
            if any(mark.startswith(self._text[start:]) for mark in marks):
                return start
        return len(self._text)

    def _tell(self, end: int) -> None:
        if end > self._at:
            text, self._at = self._text[self._at : end], end
            if text.strip() or not (self._ended and self.num_calls):
                self.pieces.append(Piece("answer", text))
        self._checkpoint = self._at

    # -- words of a call -----------------------------------------------------------------------------------------

    def spaces(self) -> Reading[None]:
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACES:
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return
            yield

    def next_is(self, word: str) -> Reading[bool]:
        """Whether the text goes on with this word, which is then taken."""
        while True:
            text = self._text[self._at : self._at + len(word)]
            if text == word:
                self._at += len(word)
                return True
            if self._ended or not word.startswith(text):
                self.ran_out = word.startswith(text)
                return False
            yield

    def expect(self, word: str) -> Reading[None]:
        """White space, then this word. Raises Broken."""
        yield from self.spaces()
        if not (yield from self.next_is(word)):
            raise Broken

    def until(self, mark: str, longest: int) -> Reading[str]:
        """The words before a mark, which is taken too. Raises Broken where they are too long or have a line end."""
        while True:
            end = self._text.find(mark, self._at)
            words = self._text[self._at : end if end >= 0 else len(self._text)]
            if "\n" in words or len(words) > longest + (0 if end >= 0 else len(mark) - 1):
                raise Broken
            if end >= 0:
                self._at = end + len(mark)
                return words
            if self._ended:
                raise Broken
            yield

    def word(self, stops: str, longest: int) -> Reading[str]:
        """The characters before one of these, which is not taken. Raises Broken where they are too many, or none."""
        begin = self._at
        while True:
            while self._at < len(self._text) and self._text[self._at] not in stops:
                self._at += 1
            word = self._text[begin : self._at]
            if len(word) > longest or (self._at == len(self._text) and self._ended):
                self.ran_out = len(word) <= longest
                raise Broken
            if self._at < len(self._text):
                return word
            behind = len(self._text) - begin
            yield
            begin = self._at - behind

    def follows(self, word: str) -> Reading[bool]:
        """Whether the text goes on with white space and this word, of which nothing is taken."""
        yield from self.spaces()
        found = yield from self.next_is(word)
        self.go_back()
        return found

    def up_to(self, marks: tuple[str, ...], tell: Callable[[str], None]) -> Reading[bool]:
        """Give what stands before the next of these marks as it comes, and take the mark; false: it never came."""
        while True:
            found = min(((at, mark) for mark in marks if (at := self._text.find(mark, self._at)) >= 0), default=None)
            end = found[0] if found else len(self._text) if self._ended else self._certain(marks)
            part, self._at = self._text[self._at : end], end + (len(found[1]) if found else 0)
            self._settle()
            if part:
                tell(part)
            if found or self._ended:
                return found is not None
            yield

    def kept_up_to(self, mark: str, longest: int, parts: list[str]) -> Reading[bool]:
        """The same, but the text can be read again; false, too, where it is too long."""
        while True:
            end = self._text.find(mark, self._at)
            if end >= 0:
                parts.append(self._text[self._at : end])
                self._at = end + len(mark)
                return True
            if self._ended or len(self._text) - self._at > longest:
                return False
            yield

    def json_before(self, mark: str) -> Reading[str]:
        """A whole object or list of JSON, then white space and a mark, which are taken too; else empty, of which
        nothing is taken. A text within may have the mark."""
        parts: list[str] = []
        begin = self._at - self._checkpoint  # what was told is dropped, so `_at` itself may shift
        if (yield from self.next_is("{")) or (yield from self.next_is("[")):
            self.go_back(1)
            if (yield from self._scan(parts.append)):
                yield from self.spaces()
                if (yield from self.next_is(mark)):
                    self._settle()
                    return "".join(parts)
        self._at = self._checkpoint + begin
        return ""

    def optional(self, word: str) -> Reading[bool]:
        """Take white space and this word, where the text goes on with them."""
        yield from self.spaces()
        taken = yield from self.next_is(word)
        if taken:
            self._settle()
        else:
            self.go_back()
        return taken

    def go_back(self, num: int | None = None) -> None:
        """Read the last characters again; without a number, all that nothing was told of."""
        self._at = self._checkpoint if num is None else self._at - num

    def _settle(self) -> None:
        """Nothing before this is read again."""
        self._checkpoint = self._at

    # -- JSON ----------------------------------------------------------------------------------------------------

    def call(self) -> Reading[None]:
        """A JSON object with a name and arguments, in any order. Raises Broken for any other."""
        name, early = "", ""
        yield from self.expect("{")
        while True:
            key = yield from self._key()
            if key in _NAME_KEYS:
                name = _word((yield from self._value()))
            elif key in _ARGUMENT_KEYS and name:
                yield from self._arguments_of(name)
                yield from self._rest_of_object()
                return
            else:
                value = yield from self._value()
                early = value if key in _ARGUMENT_KEYS else early
            yield from self.spaces()
            if (yield from self.next_is("}")):
                break
            yield from self.expect(",")
        if not name:
            raise Broken
        self.tell_whole(name, _as_object(early))

    def _key(self) -> Reading[str]:
        yield from self.spaces()
        key = _word((yield from self._value()))
        if key not in _NAME_KEYS | _ARGUMENT_KEYS | _OTHER_KEYS:
            raise Broken
        yield from self.expect(":")
        yield from self.spaces()
        return key

    def _arguments_of(self, name: str) -> Reading[None]:
        """Those of a call whose name came before: an object is told as it comes."""
        if (yield from self.next_is("{")):
            self.go_back(1)
            yield from self.arguments(name)
        else:
            self.tell_whole(name, _as_object((yield from self._value())))

    def arguments(self, name: str) -> Reading[None]:
        """A call of this name with the JSON object that follows, told as it comes."""
        self.begin(name)
        yield from self._scan(self.tell_arguments)
        self.num_whole += 1

    def begin(self, name: str) -> None:
        """A call of this name, whose arguments follow."""
        self.num_calls += 1
        self.pieces.append(Piece("call", name))

    def tell_text(self, text: str) -> None:
        """More of a text in the arguments, as JSON has it between quotes."""
        self.tell_arguments(json.dumps(text, ensure_ascii=False)[1:-1])

    def finish(self, text: str) -> None:
        """The end of the arguments of a call that was begun."""
        if text:
            self.tell_arguments(text)
        self.num_whole += 1

    def tell_arguments(self, text: str) -> None:
        """More of the arguments. What came before is not read again."""
        self.pieces.append(Piece("arguments", text))
        self._settle()

    def tell_whole(self, name: str, arguments: str) -> None:
        """A call with all of its arguments."""
        self.num_calls += 1
        self.num_whole += 1
        self.pieces += [Piece("call", name), Piece("arguments", arguments)]
        self._settle()

    def _rest_of_object(self) -> Reading[None]:
        """What stands behind the arguments (an id), to the closing brace. Without that brace it is text."""
        try:
            while not (yield from self.optional("}")):
                yield from self.expect(",")
                yield from self._key()
                yield from self._value()
        except Broken:
            self.go_back()

    def _value(self) -> Reading[str]:
        """The text of a JSON value. Raises Broken where there is none."""
        parts: list[str] = []
        if not (yield from self._scan(parts.append)):
            raise Broken
        return "".join(parts)

    def _scan(self, tell: Callable[[str], None]) -> Reading[bool]:
        """Take one JSON value; whether it was whole. What is no JSON ends it."""
        scanner = _Scanner()
        while True:
            end = scanner.scan(self._text, self._at)
            if end > self._at:
                text, self._at = self._text[self._at : end], end
                tell(text)
            if scanner.state != "open":
                return scanner.state == "whole"
            if self._ended:
                return False
            yield


class _Scanner:
    """Finds the end of one JSON value, whose text may come in pieces."""

    def __init__(self) -> None:
        self.state = "open"  # or `whole`, or `broken`
        self._depth = 0
        self._in_string = self._escaped = self._begun = False

    def scan(self, text: str, start: int) -> int:
        """Where the value ends, or the text that is there."""
        for at in range(start, len(text)):
            if self._in_string:
                self._in_string_at(text[at])
            elif not self._outside_at(text[at]):
                return at
            if self.state == "whole":
                return at + 1
        return len(text)

    def _in_string_at(self, character: str) -> None:
        if self._escaped or character == "\\":
            self._escaped = not self._escaped
        elif character == '"':
            self._in_string = False
            self._close()

    def _outside_at(self, character: str) -> bool:
        """Whether the character belongs to the value."""
        if self._depth == 0 and self._begun and character in ",}] \t\r\n":
            self.state = "whole"  # a number or a word ends before this
            return False
        if character not in _OUTSIDE_STRINGS or (not self._begun and character in ",:}]"):
            self.state = "broken"
            return False
        self._begun = self._begun or character not in _SPACES
        if character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self._close()
        return True

    def _close(self) -> None:
        if self._depth == 0:
            self.state = "whole"


def _word(value: str) -> str:
    """The text of a JSON string. Raises Broken for another value."""
    try:
        word = json.loads(value)
    except (ValueError, RecursionError):
        raise Broken from None
    if not isinstance(word, str) or not word:
        raise Broken
    return word


def _as_object(value: str) -> str:
    """Arguments that are no plain object: in a JSON text, or none at all. Raises Broken for others."""
    if value in ("", "null"):
        return "{}"
    try:
        given = json.loads(value)
        inner = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        raise Broken from None
    if not isinstance(inner, dict):
        raise Broken
    return given if isinstance(given, str) else value
