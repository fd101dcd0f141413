"""Calls as Apertus writes them: `<|tools_prefix|>[{"name": {…}}, …]<|tools_suffix|>`, each an object with one key."""

import re

from services.grammar.calls import CallFrame
from services.tokens.call_text import Broken, CallText, Reading

OPENING, CLOSING = "<|tools_prefix|>", "<|tools_suffix|>"
FRAMES = (
    CallFrame(
        opening=re.compile(re.escape(OPENING)),
        name='~{~"',
        arguments='":~',
        end="~}",
        first="~[",
        again="~,",
        last=f"~]~{CLOSING}",
    ),
)
_NAME = re.compile(r"[\w.-]{1,128}")


def read(text: CallText) -> Reading[None]:
    """Reads to the end of the text."""
    while (yield from text.said((OPENING,))):
        try:
            yield from text.expect("[")
            yield from _call(text)
            while (yield from text.optional(",")):
                yield from _call(text)
        except Broken:
            text.restore(OPENING)
            continue
        yield from text.optional("]")
        yield from text.optional(CLOSING)


def _call(text: CallText) -> Reading[None]:
    yield from text.expect("{")
    yield from text.expect('"')
    name = yield from text.word('"', 128)
    if not _NAME.fullmatch(name):
        raise Broken
    yield from text.expect('"')
    yield from text.expect(":")
    yield from text.spaces()
    if not (yield from text.next_is("{")):
        raise Broken
    text.go_back(1)
    yield from text.arguments(name)
    yield from text.optional("}")
