"""Finds the prose in a markdown text; the rest is fenced or inline code, mathematics, and URLs with their link targets.

Steps that judge or edit language (`blocked_phrases`, `quality`, `languages`, `mask_personal_data`) look at prose alone:
a word in an import statement is no phrase. The functions accept any text and take time linear in its length. An
unclosed fence runs to the end of the text, as CommonMark says; an inline mark that is not closed nearby is text.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

GAP = "\ufffc"  # OBJECT REPLACEMENT CHARACTER: here stood something that is no text; neither a word nor a space
MAX_INLINE_CHARS = 1000  # of inline code and mathematics; a stray backtick must not swallow the answer
MAX_PREFIX_CHARS = 200  # before a fence

_MARK = re.compile(r"``*|~~~+|\$\$?|\\[\s\S]|\]\(|://|www\.")
_FENCE_PREFIX = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*")  # a fence may stand in a list or a quotation
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}$")
_ADDRESS_CHARS = r"[!#$%&'*+,\-./0-9:;=?@A-Z_a-z~]"
_ADDRESS = re.compile(rf"(?:{_ADDRESS_CHARS}|\({_ADDRESS_CHARS}*\))+")
_TARGET = re.compile(r"[^()\s]*(?:\([^()\s]*\)[^()\s]*)*")
_DOLLARS = re.compile(r"(?=\S)[^$\n]+(?<=\S)\$(?!\d)")  # Pandoc's rule: "$5 and $6" are prices
_MATH_ENDS = {"$$": "$$", "\\(": "\\)", "\\[": "\\]"}


def other_spans(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of everything that is not prose, in order, without overlap."""
    done = 0
    while mark := _MARK.search(text, done):
        start, end = _READ[mark[0][0]](text, mark)
        if end > start:
            yield max(start, done), end
        done = max(end, mark.end())


def prose(text: str, instead: str = GAP) -> str:
    """The text with `instead` in the place of all that is not prose."""
    pieces, done = [], 0
    for start, end in other_spans(text):
        pieces.append(text[done:start])
        done = end
    if not done:
        return text
    return instead.join([*pieces, text[done:]])


def edit_prose(text: str, edit: Callable[[str], str]) -> str:
    """The text with each piece of prose replaced by what `edit` makes of it; the rest as it stands."""
    pieces, done = [], 0
    for start, end in other_spans(text):
        pieces += [edit(text[done:start]), text[start:end]]
        done = end
    return "".join([*pieces, edit(text[done:])])


def _code(text: str, mark: re.Match[str]) -> tuple[int, int]:
    if len(mark[0]) >= 3 and _opens_fence(text, mark):
        closing = _closing_fence(mark[0][0], len(mark[0])).search(text, mark.end())
        return mark.start(), closing.end() if closing else len(text)
    if mark[0][0] == "~":
        return _nothing(text, mark)
    closing = _closing_run(len(mark[0])).search(text, mark.end(), _paragraph_end(text, mark.end()))
    return (mark.start(), closing.end()) if closing else _nothing(text, mark)


def _opens_fence(text: str, mark: re.Match[str]) -> bool:
    line_start = text.rfind("\n", max(0, mark.start() - MAX_PREFIX_CHARS), mark.start()) + 1
    if not _FENCE_PREFIX.fullmatch(text, line_start, mark.start()):
        return False
    line_end = text.find("\n", mark.end())
    info = text[mark.end() : line_end if line_end >= 0 else len(text)]
    return mark[0][0] == "~" or "`" not in info


@lru_cache(64)
def _closing_fence(char: str, length: int) -> re.Pattern[str]:
    return re.compile(rf"\n[ \t>]*{char}{{{length},}}[ \t]*(?=\n|\Z)")


@lru_cache(64)
def _closing_run(length: int) -> re.Pattern[str]:
    return re.compile(rf"(?<!`)`{{{length}}}(?!`)")


def _math(text: str, mark: re.Match[str]) -> tuple[int, int]:
    last = _paragraph_end(text, mark.end())
    if mark[0] == "$":
        closing = _DOLLARS.match(text, mark.end(), last)
        return (mark.start(), closing.end()) if closing else _nothing(text, mark)
    ending = _MATH_ENDS.get(mark[0])  # none: a backslash that escapes the next character
    end = text.find(ending, mark.end(), last) if ending else -1
    return (mark.start(), end + 2) if end >= 0 else _nothing(text, mark)


def _address(text: str, mark: re.Match[str]) -> tuple[int, int]:
    start = mark.start()
    if mark[0] == "://":
        scheme = _SCHEME.search(text[max(0, start - 16) : start])
        if not scheme:
            return _nothing(text, mark)
        start -= len(scheme[0])
    elif text[start - 1 : start].isalnum():
        return _nothing(text, mark)
    address = _ADDRESS.match(text, mark.end())
    end = mark.end() + len(address[0].rstrip("!',.:;?*_~")) if address else mark.end()
    return (start, end) if end > mark.end() else _nothing(text, mark)


def _link_target(text: str, mark: re.Match[str]) -> tuple[int, int]:
    target = _TARGET.match(text, mark.end(), mark.end() + 2 * MAX_INLINE_CHARS)
    return mark.end(), target.end() if target else mark.end()


def _nothing(text: str, mark: re.Match[str]) -> tuple[int, int]:
    return mark.end(), mark.end()


def _paragraph_end(text: str, start: int) -> int:
    """Where inline markup that begins at `start` must have ended."""
    last = min(len(text), start + MAX_INLINE_CHARS)
    blank = text.find("\n\n", start, last)
    return blank if blank >= 0 else last


_READ = {"`": _code, "~": _code, "$": _math, "\\": _math, ":": _address, "w": _address, "]": _link_target}
