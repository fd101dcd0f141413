"""Calls as Llama 3 writes them: the answer is `{"name": …, "parameters": {…}}`, perhaps behind `<|python_tag|>`.

Several stand one after the other, with `;` or line ends between. Elsewhere such an object is text: an answer may quote
one. The calls of its built-in tools (`brave_search.call(…)`) stay text, since no request describes those tools.
"""

import re

from services.grammar.calls import CallFrame
from services.tokens.call_text import Broken, CallText, Reading

OPENING = "<|python_tag|>"
_OBJECT = "{"
_TO_NAME = re.compile(r'(\A\s*|<\|python_tag\|>\s*)\{\s*("type"\s*:\s*"function"\s*,\s*)?"name"\s*:')
FRAMES = (CallFrame(opening=_TO_NAME, name='~"', arguments='",~"parameters":~', end="~}"),)  # it calls one at a time


def read(text: CallText) -> Reading[None]:
    """Reads to the end of the text."""
    at_start = True
    while True:
        mark = (yield from _object(text)) if at_start else ""
        mark = mark or (yield from text.said((OPENING,)))
        if not mark:
            return
        try:
            if mark == _OBJECT:
                text.go_back(1)
            yield from text.call()
        except Broken:
            text.restore(mark)
            at_start = False
            continue
        at_start = True
        yield from text.optional(";")


def _object(text: CallText) -> Reading[str]:
    """The brace of an object with which the text goes on, behind white space; empty if it does not."""
    yield from text.spaces()
    if (yield from text.next_is(_OBJECT)):
        return _OBJECT
    text.go_back()
    return ""
