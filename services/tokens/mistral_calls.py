"""Calls as Mistral's models write them, behind `[TOOL_CALLS]`.

The older ones write a list, `[TOOL_CALLS][{"name": …, "arguments": {…}, "id": …}, …]`, the newer ones
`[TOOL_CALLS]name[ARGS]{…}` (some with `[CALL_ID]id` between) for each call.
"""

import re

from services.grammar.calls import CallFrame
from services.tokens.call_text import Broken, CallText, Reading

OPENING = "[TOOL_CALLS]"
_ARGUMENTS, _CALL_ID = "[ARGS]", "[CALL_ID]"
MARKS = (OPENING, _ARGUMENTS, _CALL_ID)
_LONGEST_NAME = 200  # with the id behind it
_OPENED = re.compile(re.escape(OPENING))
_LIST = CallFrame(
    opening=_OPENED, first="~[", name='~{~"name":~"', arguments='",~"arguments":~', end="~}", again="~,", last="~]"
)
_NAMED = CallFrame(opening=_OPENED, name="~", arguments=f"{_ARGUMENTS}~", end="", again=OPENING)
_WITH_IDS = CallFrame(
    opening=_OPENED, name="~", arguments=f"{_CALL_ID}callid001{_ARGUMENTS}~", end="", again=OPENING
)  # readers get ids of ours
FRAMES = (_LIST, _NAMED, _WITH_IDS)


def read(text: CallText) -> Reading[None]:
    """Reads to the end of the text."""
    while (yield from text.said((OPENING,))):
        try:
            yield from text.spaces()
            yield from (_list(text) if (yield from text.next_is("[")) else _named(text))
        except Broken:
            text.restore(OPENING)


def _list(text: CallText) -> Reading[None]:
    yield from text.call()
    while (yield from text.optional(",")):
        yield from text.call()
    yield from text.optional("]")


def _named(text: CallText) -> Reading[None]:
    words = yield from text.until(_ARGUMENTS, _LONGEST_NAME)
    name = words.partition(_CALL_ID)[0].strip()
    yield from text.spaces()
    if not name or not (yield from text.next_is("{")):
        raise Broken
    text.go_back(1)
    yield from text.arguments(name)
