"""The families of models whose calls of tools are understood: a table, with one parser for each.

`find_call_format` chooses by what the model's own chat template writes for a call: the family whose parser reads the
same call back. `tokenization.py` asks it once for each model.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.grammar.calls import CallFrame
from services.tokens import (
    apertus_calls,
    gemma_calls,
    harmony_calls,
    hermes_calls,
    listed_calls,
    llama_calls,
    mistral_calls,
    named_calls,
    python_calls,
    tagged_calls,
)
from services.tokens.argument_types import ArgumentTypes
from services.tokens.call_text import CallText, Reading
from services.tokens.pieces import Piece
from services.wire.messages import Tool


@dataclass(frozen=True)
class CallFamily:
    """`read` parses a text. `marks` may be special tokens, which are no text elsewhere. `opening` begins a call.

    `arguments` is the character that begins a call's arguments. `frames`: how models of the family write calls that
    must obey a grammar; without them, none can be made to.
    """

    name: str
    read: Callable[[CallText], Reading[None]]
    marks: tuple[str, ...]
    opening: str
    frames: tuple[CallFrame, ...] = ()
    arguments: str = "{"


_TAGGED = [
    CallFamily(name, tags.read, tags.marks, tags.opening, tags.frames, arguments="<")
    for name, tags in tagged_calls.DIALECTS.items()
]
_LISTED = [
    CallFamily(name, listed.read, listed.marks, listed.opening, listed.frames)
    for name, listed in listed_calls.DIALECTS.items()
]
_NAMED = [
    CallFamily(name, named.read, named.marks, named.opening, named.frames)
    for name, named in named_calls.DIALECTS.items()
]
FAMILIES = (
    CallFamily(
        "hermes", hermes_calls.read, (hermes_calls.OPENING, "</tool_call>"), hermes_calls.OPENING, hermes_calls.FRAMES
    ),
    CallFamily("mistral", mistral_calls.read, mistral_calls.MARKS, mistral_calls.OPENING, mistral_calls.FRAMES),
    CallFamily("llama", llama_calls.read, (llama_calls.OPENING,), "{", llama_calls.FRAMES),
    *_TAGGED,
    *_LISTED,
    *_NAMED,
    CallFamily("gemma", gemma_calls.read, gemma_calls.MARKS, gemma_calls.OPENING),
    CallFamily("harmony", harmony_calls.read, harmony_calls.MARKS, harmony_calls.OPENING),
    CallFamily(
        "python", python_calls.read, (python_calls.OPENING, python_calls.CLOSING), python_calls.OPENING, arguments="("
    ),
    CallFamily(
        "apertus",
        apertus_calls.read,
        (apertus_calls.OPENING, apertus_calls.CLOSING),
        apertus_calls.OPENING,
        apertus_calls.FRAMES,
    ),
)


@dataclass(frozen=True)
class CallFormat:
    """How one model calls tools. `any_call` and `call_of` are what its text begins with when it must call one."""

    family: CallFamily
    any_call: str
    named: str  # with the name of the probe
    probe: str
    frame: CallFrame | None = None

    def beginning(self, name: str) -> str:
        """What an answer begins with that must call the tool of this name; empty: any tool."""
        return self.named.replace(self.probe, name) if name else self.any_call

    def parser(self, tools: Sequence[Tool] = (), *, parallel: bool = True) -> "CallParser":
        return CallParser(self.family, tools, parallel=parallel)


class CallParser:
    """Text of an answer in, pieces out: `answer`, and for each call `call` (its name) and `arguments`.

    Without `parallel` the answer is over once its first call is whole.
    """

    def __init__(self, family: CallFamily, tools: Sequence[Tool] = (), *, parallel: bool = True) -> None:
        self.family = family
        self._parallel = parallel
        self._text = CallText(ArgumentTypes(tools))
        self._reading = family.read(self._text)
        self._ended = False
        self._has_called = False
        next(self._reading)

    @property
    def is_over(self) -> bool:
        """Whether nothing may follow."""
        return not self._parallel and self._text.num_whole > 0

    def text(self, text: str) -> list[Piece]:
        """Take text; returns what it certainly is by now."""
        self._text.put(text)
        return self._go_on()

    def finish(self) -> list[Piece]:
        """No text follows: returns what is still held."""
        self._text.end()
        return self._go_on()

    def _go_on(self) -> list[Piece]:
        if not self._ended:
            self._ended = next(self._reading, self._text) is self._text
        pieces, self._text.pieces = self._text.pieces, []
        return pieces if self._parallel else self._up_to_first(pieces)

    def _up_to_first(self, pieces: list[Piece]) -> list[Piece]:
        """Without what follows the first call."""
        for index, piece in enumerate(pieces):
            if self._has_called and piece.kind != "arguments":
                return pieces[:index]
            self._has_called = self._has_called or piece.kind == "call"
        return pieces


def find_call_format(written: str, name: str, arguments: dict[str, str]) -> CallFormat | None:
    """The format of a model by the text that its template writes for this call; None if no family writes so."""
    for family in FAMILIES:
        start = written.find(family.opening)
        if start < 0 or (family.opening == "{" and written[:start].strip()):
            continue
        call = written[start:]
        if _calls(family, call) == [(name, arguments)]:
            opened = call.rindex(family.arguments, 0, call.index(next(iter(arguments))))
            frame = next((frame for frame in family.frames if _frames(frame, call[:opened], name)), None)
            head = written[:start] if name in written[:start] else ""  # it says, too, whom the message is for
            named = head + call[:opened]
            return CallFormat(family, named[: named.index(name)], named, name, frame)
    return None


def _frames(frame: CallFrame, beginning: str, name: str) -> bool:
    """Whether a call of this name that begins so is one of the frame's."""
    begun = frame.begun(beginning)
    return (
        begun is not None and frame.grammar([{"function": {"name": name}}], (), several=False).after(begun) is not None
    )


def _calls(family: CallFamily, text: str) -> list[tuple[str, object]]:
    parser = CallParser(family)
    told = [*parser.text(text), *parser.finish()]
    calls = "".join("\0" + piece.text + "\1" if piece.kind == "call" else piece.text for piece in told)
    found = (call.partition("\1") for call in calls.split("\0")[1:])
    return [(name, _first_object(arguments)) for name, _, arguments in found]


def _first_object(text: str) -> object:
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except ValueError:
        return None
