"""Calls as a name between marks, then their arguments as an object of JSON. One row for each set of marks."""

import re
from dataclasses import dataclass

from services.grammar.calls import CallFrame
from services.tokens.call_text import Broken, CallText, Reading

_LONGEST_NAME = 200  # with an id beside it


@dataclass(frozen=True)
class Named:
    """`name` finds the name, its only group, in the words before the arguments. `each` begins each call behind the
    opening; without it there is one. `before_name`, `behind_name`: what stands beside a name that must obey a grammar.
    """

    opening: str
    name: re.Pattern[str]
    arguments: str
    end: str
    each: str = ""
    closing: str = ""
    others: tuple[str, ...] = ()  # marks among the words
    before_name: str = ""
    behind_name: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        words = (self.opening, self.arguments, self.end, self.each, self.closing, *self.others)
        return tuple(word for word in words if len(word) > 1)

    @property
    def frames(self) -> tuple[CallFrame, ...]:
        """Readers get ids of ours, so a grammar may say which one a call has."""
        frame = CallFrame(
            opening=re.compile(re.escape(self.opening)),
            name=f"~{self.each}{self.before_name}" if self.each else "",
            arguments=f"{self.behind_name}{self.arguments}~",
            end=f"~{self.end}",
            again="" if self.each else f"~{self.opening}",
            last=f"~{self.closing}" if self.closing else "",
        )
        return (frame,)

    def read(self, text: CallText) -> Reading[None]:
        """Reads to the end of the text."""
        while (yield from text.said((self.opening,))):
            try:
                yield from text.expect(self.each)
                yield from self._call(text)
                while self.each and (yield from text.optional(self.each)):
                    yield from self._call(text)
            except Broken:
                text.restore(self.opening)
                continue
            if self.closing:
                yield from text.optional(self.closing)

    def _call(self, text: CallText) -> Reading[None]:
        words = yield from text.until(self.arguments, _LONGEST_NAME)
        found = self.name.fullmatch(words.strip())
        yield from text.spaces()
        if not found or not (yield from text.next_is("{")):
            raise Broken
        text.go_back(1)
        yield from text.arguments(found[1])
        yield from text.optional(self.end)


DIALECTS = {
    "kimi": Named(
        opening="<|tool_calls_section_begin|>",
        each="<|tool_call_begin|>",
        name=re.compile(r"(?:functions\.)?([\w.-]{1,128}?)(?::\d+)?"),
        arguments="<|tool_call_argument_begin|>",
        end="<|tool_call_end|>",
        closing="<|tool_calls_section_end|>",
        before_name="functions.",
        behind_name=":0",
    ),
    "functionary": Named(opening="<function=", name=re.compile(r"([\w.-]{1,128})"), arguments=">", end="</function>"),
    "solar": Named(
        opening="<|tool_calls|>",
        each="<|tool_call:begin|>",
        name=re.compile(r"(?:.*<\|tool_call:name\|>)?([\w.-]{1,128})"),
        arguments="<|tool_call:args|>",
        end="<|tool_call:end|>",
        closing="<|calls|>",
        others=("<|tool_call:name|>",),
        before_name="callid001<|tool_call:name|>",
    ),
}
