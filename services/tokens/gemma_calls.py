"""Calls as Gemma 4 writes them: `<|tool_call>call:name{key:<|"|>text<|"|>,n:3,of:{a:[true]}}<tool_call|>`.

Keys have no quotes, or those of a text, which are a mark. Numbers and words are as in JSON. The arguments are told as
they come.
"""

import json
import re

import orjson

from services.tokens.call_text import Broken, CallText, Reading

OPENING, CLOSING, _QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
MARKS = (OPENING, CLOSING, _QUOTE)
_NAME = re.compile(r"[\w.-]{1,128}")
_LONGEST_WORD = 200
_MOST_LEVELS = 24


def read(text: CallText) -> Reading[None]:
    """Reads to the end of the text."""
    while (yield from text.said((OPENING,))):
        try:
            yield from text.expect("call:")
            name = yield from text.word("{", _LONGEST_WORD)
            if not _NAME.fullmatch(name):
                raise Broken
            text.begin(name)
            yield from _value(text, 0)
            text.finish("")
        except Broken:
            text.restore(OPENING)
            continue
        yield from text.optional(CLOSING)


def _value(text: CallText, level: int) -> Reading[None]:
    if level > _MOST_LEVELS:
        raise Broken
    yield from text.spaces()
    if (yield from text.next_is("{")):
        yield from _members(text, level)
    elif (yield from text.next_is("[")):
        yield from _items(text, level)
    elif (yield from text.next_is(_QUOTE)):
        yield from _quoted(text)
    else:
        text.tell_arguments(_json((yield from text.word(",}]", _LONGEST_WORD))))


def _members(text: CallText, level: int) -> Reading[None]:
    text.tell_arguments("{")
    yield from text.spaces()
    if (yield from text.next_is("}")):
        text.tell_arguments("}")
        return
    while True:
        yield from text.spaces()
        if (yield from text.next_is(_QUOTE)):
            yield from _quoted(text)
        else:
            key = yield from text.word(":,{}[]", _LONGEST_WORD)
            text.tell_arguments(json.dumps(key.rstrip(), ensure_ascii=False))
        yield from text.expect(":")
        text.tell_arguments(": ")
        yield from _value(text, level + 1)
        if (yield from _ends(text, "}")):
            return


def _items(text: CallText, level: int) -> Reading[None]:
    text.tell_arguments("[")
    yield from text.spaces()
    if (yield from text.next_is("]")):
        text.tell_arguments("]")
        return
    while True:
        yield from _value(text, level + 1)
        if (yield from _ends(text, "]")):
            return


def _ends(text: CallText, closing: str) -> Reading[bool]:
    """Whether an object or a list ends here. Raises Broken where neither its end nor a comma comes."""
    yield from text.spaces()
    if (yield from text.next_is(closing)):
        text.tell_arguments(closing)
        return True
    if not (yield from text.next_is(",")):
        raise Broken
    text.tell_arguments(", ")
    return False


def _quoted(text: CallText) -> Reading[None]:
    text.tell_arguments('"')
    if not (yield from text.up_to((_QUOTE,), text.tell_text)):
        raise Broken
    text.tell_arguments('"')


def _json(word: str) -> str:
    try:
        orjson.loads(word)
    except orjson.JSONDecodeError:
        raise Broken from None
    return word.strip()
