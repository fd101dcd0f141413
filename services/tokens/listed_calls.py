"""Calls as objects of JSON between two marks, in a list or one after the other. One row for each pair of marks."""

from dataclasses import dataclass

from services.tokens.call_text import Broken, CallText, Reading


@dataclass(frozen=True)
class Listed:
    """`[{"name": …, "arguments": {…}}, …]` between two marks; the list's brackets may be missing."""

    opening: str
    closing: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.opening, self.closing)))

    def read(self, text: CallText) -> Reading[None]:
        """Reads to the end of the text."""
        while (yield from text.said((self.opening,))):
            told = text.num_calls
            try:
                yield from text.spaces()
                yield from text.next_is("[")
                yield from text.call()
                while (yield from text.optional(",")) or (yield from text.follows("{")):
                    yield from text.call()
            except Broken:
                if text.num_calls == told:
                    text.restore(self.opening)
                else:
                    text.go_back()
                continue
            yield from text.optional("]")
            if self.closing:
                yield from text.optional(self.closing)


DIALECTS = {
    "apriel": Listed("<tool_calls>", "</tool_calls>"),  # MiniMax M1, too
    "nemotron": Listed("<TOOLCALL>", "</TOOLCALL>"),
    "gigachat": Listed("<|function_call|>"),
    "cohere": Listed("<|START_ACTION|>", "<|END_ACTION|>"),
    "command-r": Listed("Action:\n```json\n", "```"),
}
