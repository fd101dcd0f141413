"""Calls as gpt-oss writes them: ` to=functions.name<|channel|>commentary json<|message|>{…}<|call|>`.

The call stands in the head of a message, where a template and the model have its words in another order:
`<|channel|>commentary to=functions.name <|constrain|>json<|message|>{…}`. `answer_parser.py` gives the head from ` to=`
on, once its message begins.
"""

import re

from services.tokens.call_text import Broken, CallText, Reading

OPENING, _MESSAGE, _CALL = " to=functions.", "<|message|>", "<|call|>"
MARKS = ("<|channel|>", _MESSAGE, _CALL, "<|constrain|>")
_HEAD = re.compile(r"([\w.-]{1,128}?)(?:(?:\s|<\|).*)?")
_LONGEST_HEAD = 200


def read(text: CallText) -> Reading[None]:
    """Reads to the end of the text. A call may lack its closing mark, at which the model's answer ends."""
    while (yield from text.said((OPENING,))):
        try:
            name = _HEAD.fullmatch((yield from text.until(_MESSAGE, _LONGEST_HEAD)))
            yield from text.spaces()
            if not name or not (yield from text.next_is("{")):
                raise Broken
            text.go_back(1)
            yield from text.arguments(name[1])
        except Broken:
            text.restore(OPENING)
            continue
        yield from text.optional(_CALL)
