"""Calls as objects of JSON between two marks, in a list or one after the other. One row for each pair of marks."""

import re
from dataclasses import dataclass

from services.grammar.calls import CallFrame
from services.tokens.call_text import Broken, CallText, Reading


@dataclass(frozen=True)
class Listed:
    """`[{"name": …, "arguments": {…}}, …]` between two marks; the list's brackets may be missing.

    `before_name` and `behind_name` are what stands around a name, with `~` for a little white space.
    """

    opening: str
    closing: str = ""
    before_name: str = '~{~"name":~"'
    behind_name: str = '",~"arguments":~'

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.opening, self.closing)))

    @property
    def frames(self) -> tuple[CallFrame, ...]:
        """A list, and calls one after the other. The model may end its answer instead of writing the closing mark."""
        opening = re.compile(re.escape(self.opening))
        bare = CallFrame(opening, self.before_name, self.behind_name, "~}", again="~")
        listed = CallFrame(opening, self.before_name, self.behind_name, "~}", first="~[", again="~,", last="~]")
        return listed, bare

    def read(self, text: CallText) -> Reading[None]:
        """Reads to the end of the text."""
        while (yield from text.said((self.opening,))):
            try:
                yield from text.spaces()
                yield from text.next_is("[")
                yield from text.call()
                while (yield from text.optional(",")) or (yield from text.follows("{")):
                    yield from text.call()
            except Broken:
                text.restore(self.opening)
                continue
            yield from text.optional("]")
            if self.closing:
                yield from text.optional(self.closing)


_TOOL_NAME, _PARAMETERS = '~"tool_name":~"', '",~"parameters":~'
DIALECTS = {
    "apriel": Listed("<tool_calls>", "</tool_calls>"),  # MiniMax M1, too
    "nemotron": Listed("<TOOLCALL>", "</TOOLCALL>"),
    "gigachat": Listed("<|function_call|>"),
    "cohere": Listed("<|START_ACTION|>", "<|END_ACTION|>", f'~{{~"tool_call_id":~"0",{_TOOL_NAME}', _PARAMETERS),
    "command-r": Listed("Action:\n```json\n", "```", f"~{{{_TOOL_NAME}", _PARAMETERS),
}
