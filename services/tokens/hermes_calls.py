"""Calls as Hermes and Qwen write them: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, one after the other."""

import re

from services.grammar.calls import CallFrame
from services.tokens.call_text import Broken, CallText, Reading

OPENING = "<tool_call>"
_CLOSING = "</tool_call>"
FRAMES = (
    CallFrame(
        opening=re.compile(OPENING),
        name='~{~"name":~"',
        arguments='",~"arguments":~',
        end=f"~}}~{_CLOSING}",
        again=f"~{OPENING}",
    ),
)


def read(text: CallText) -> Reading[None]:
    """Reads to the end of the text. A call may lack its closing mark."""
    while (yield from text.said((OPENING,))):
        try:
            yield from text.call()
        except Broken:
            text.restore(OPENING)
            continue
        yield from text.optional(_CLOSING)
