"""Calls as tags: `<function=name><parameter=key>value</parameter></function>` and their like, one row a dialect.

A value has no quotes. The tool's schema says its type: a text is told as it comes, anything else once it is whole.
"""

import json
import re
from dataclasses import dataclass

from services.grammar.calls import CallFrame
from services.grammar.tagged import TaggedArguments
from services.tokens.argument_types import Types, as_json
from services.tokens.call_text import Broken, CallText, Reading

_LONGEST_NAME = 200
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_TEXT = frozenset({"string"})
_OTHER = frozenset({"null", "boolean", "number", "object", "array"})


@dataclass(frozen=True)
class Tags:
    """The tags around one call, in their order.

    `keyed`: what may stand behind a key, with the types that it tells of. `lines`: a value stands in lines of its own.
    `several`: one opening may have several calls. `quoted`: the marks of a value that may hold tags.
    """

    opening: str
    before_name: str
    behind_name: str
    before_key: str
    keyed: tuple[tuple[str, Types], ...]
    behind_value: str
    end: str
    closing: str = ""
    before_value: str = ""
    lines: bool = False
    several: bool = False
    quoted: tuple[str, str] = ("", "")
    others: tuple[str, ...] = ()  # tokens of which tags consist

    @property
    def marks(self) -> tuple[str, ...]:
        keyed = [mark for mark, _ in self.keyed]
        words = (self.before_name, self.behind_name, self.before_key, *keyed, self.behind_value, self.end)
        return tuple(
            word for word in (self.opening, *words, self.before_value, self.closing, *self.others) if len(word) > 1
        )

    @property
    def frames(self) -> tuple[CallFrame, ...]:
        """Of tags that say the type of a value, the first is that of texts, and the second that of all others."""
        opening = re.compile(re.escape(self.opening))
        line = "\n" if self.lines else ""
        behind_key, *others = (mark + self.before_value + line for mark, _ in self.keyed)
        behind_value, behind_other = line + self.behind_value, others[0] if others else ""
        tagged = TaggedArguments(self.before_key, behind_key, behind_value, behind_other, self.quoted[0])
        name, behind_name = f"~{self.before_name}", f"{self.behind_name}~"
        if self.several:
            return (CallFrame(opening, name, behind_name, self.end, again="", last=f"~{self.closing}", tagged=tagged),)
        end = f"{self.end}~{self.closing}" if self.closing else self.end
        return (CallFrame(opening, name, behind_name, end, again=f"~{self.opening}", tagged=tagged),)

    def read(self, text: CallText) -> Reading[None]:
        """Reads to the end of the text."""
        while (yield from text.said((self.opening,))):
            try:
                yield from self._calls(text)
            except Broken:
                text.restore(self.opening)

    def _calls(self, text: CallText) -> Reading[None]:
        yield from text.expect(self.before_name)
        yield from self._call(text)
        while self.several and (yield from text.follows(self.before_name)):
            yield from text.expect(self.before_name)
            yield from self._call(text)
        if self.closing:
            yield from text.optional(self.closing)

    def _call(self, text: CallText) -> Reading[None]:
        """A call behind what stands before its name. It is told once an argument or its end comes.

        Models forget the end: what closes the calls ends this one too, as does text that is no argument.
        """
        if not self.before_name:
            yield from text.spaces()
        name = yield from text.word(self.behind_name[:1] or "\n<", _LONGEST_NAME)
        if not _NAME.fullmatch(name) or not (yield from text.next_is(self.behind_name)):
            raise Broken
        yield from text.spaces()
        if (yield from text.next_is(self.end)):
            text.begin(name)
            text.finish("{}")
            return
        yield from self._argument(text, name, is_first=True)
        try:
            while not ((yield from text.optional(self.end)) or (yield from self._closes(text))):
                yield from self._argument(text, name, is_first=False)
        except Broken:
            text.go_back()
            if not text.ran_out:  # else the call was cut
                text.finish("}")
            raise
        text.finish("}")

    def _closes(self, text: CallText) -> Reading[bool]:
        return bool(self.closing) and (yield from text.follows(self.closing))

    def _argument(self, text: CallText, name: str, *, is_first: bool) -> Reading[None]:
        yield from text.expect(self.before_key)
        key = yield from text.word(self.keyed[0][0][:1], _LONGEST_NAME)
        types = yield from self._behind_key(text)
        if self.before_value:
            yield from text.expect(self.before_value)
        if is_first:
            text.begin(name)
        text.tell_arguments(f"{'{' if is_first else ', '}{json.dumps(key, ensure_ascii=False)}: ")
        yield from self._value(text, types or text.types.of(name, key))

    def _behind_key(self, text: CallText) -> Reading[Types]:
        for mark, types in self.keyed:
            if (yield from text.next_is(mark)):
                return types
        raise Broken

    def _value(self, text: CallText, types: Types) -> Reading[None]:
        ends = (f"\n{self.behind_value}", self.behind_value) if self.lines else (self.behind_value,)
        if self.lines:
            yield from text.next_is("\n")
        opened, closed = self.quoted
        if opened and (yield from text.next_is(opened)):
            types, ends = _TEXT, (closed + self.behind_value,)
        if types == _TEXT:
            text.tell_arguments('"')
            if (yield from text.up_to(ends, text.tell_text)):
                text.tell_arguments('"')
            return
        value, whole = "", True
        if "string" not in types:
            value = yield from text.json_before(self.behind_value)
        if not value:
            parts: list[str] = []
            whole = yield from text.up_to(ends, parts.append)
            value = "".join(parts)
        if value:
            text.tell_arguments(as_json(value, types) if whole else value)
        elif whole:
            text.tell_arguments('""')


_PARAMETER = {"before_key": "<parameter=", "keyed": ((">", frozenset[str]()),), "behind_value": "</parameter>"}
_FUNCTION = {"before_name": "<function=", "behind_name": ">", "end": "</function>", **_PARAMETER}


def _invoked(mark: str, block: str, keyed: tuple[tuple[str, Types], ...]) -> Tags:
    return Tags(
        opening=f"<{block}>",
        before_name=f'<{mark}invoke name="',
        behind_name='">',
        before_key=f'<{mark}parameter name="',
        keyed=keyed,
        behind_value=f"</{mark}parameter>",
        end=f"</{mark}invoke>",
        closing=f"</{block}>",
        several=True,
        others=(mark,),
    )


_GLM = Tags(
    opening="<tool_call>",
    before_name="",
    behind_name="",
    before_key="<arg_key>",
    keyed=(("</arg_key>", frozenset()),),
    before_value="<arg_value>",
    behind_value="</arg_value>",
    end="</tool_call>",
)
_HUNYUAN = Tags(
    opening="<tool_calls:opensource>",
    before_name="<tool_call:opensource>",
    behind_name="<tool_sep:opensource>",
    before_key="<arg_key:opensource>",
    keyed=(("</arg_key:opensource>", frozenset()),),
    before_value="<arg_value:opensource>",
    behind_value="</arg_value:opensource>",
    end="</tool_call:opensource>",
    closing="</tool_calls:opensource>",
    several=True,
)
_PLAIN = (('">', frozenset[str]()),)
_TYPED = (('" string="true">', _TEXT), ('" string="false">', _OTHER), *_PLAIN)
_DSML = "｜DSML｜"

DIALECTS = {
    "qwen-coder": Tags(opening="<tool_call>", closing="</tool_call>", lines=True, **_FUNCTION),  # type: ignore[arg-type]
    "seed": Tags(opening="<seed:tool_call>", closing="</seed:tool_call>", several=True, **_FUNCTION),  # type: ignore[arg-type]
    "glm": _GLM,
    "hunyuan": _HUNYUAN,
    "minimax": _invoked("", "minimax:tool_call", _PLAIN),
    "muse": _invoked("atem:", "atem:function_calls", _PLAIN),
    "deepseek-3.2": _invoked(_DSML, f"{_DSML}function_calls", _TYPED),
    "deepseek-4": _invoked(_DSML, f"{_DSML}tool_calls", _TYPED),
    "minicpm": Tags(
        opening='<function name="',
        before_name="",
        behind_name='">',
        before_key='<param name="',
        keyed=_PLAIN,
        behind_value="</param>",
        end="</function>",
        quoted=("<![CDATA[", "]]>"),
    ),
}
