"""The words of a text, its marks, and numbers for runs of words, for the steps `deduplicate` and `decontaminate`.

Lower case, without punctuation; `_` and digits are letters. Scripts that are written without spaces (Han, kana, Thai,
Lao, Khmer, Burmese) count each character as a word. The numbers are the same in every process and on every machine.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_KNOWN_WORDS = 100_000  # about 15 MB; text holds few words very often and many once
MAX_KNOWN_MARKS = 4_096
MAX_KNOWN_WORD_CHARS = 32

_UNSPACED_CHARS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"([{_UNSPACED_CHARS}])")
# Vowel signs and accents that stand as characters of their own are no letters to `\w`, yet part of the word.
_WORD = re.compile(
    r"[\w\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0dff]+"
)
# It begins with a class of characters, so that the search skips letters in C; the rest looks back at what that matched.
_MARK = re.compile(
    r"""[^A-Za-z\s.,;:?'"()`](?:"""
    rf"(?<=\d)(?<![^\W{_UNSPACED_CHARS}].)\d*"  # a number, also of a quantity (5km), but not within a name (word5)
    r"|(?<=[-\u2212])(?<![\w)\]\-\u2212].)(?=[\w(])"  # a sign, not a dash or a hyphen
    r"|(?<=!)(?=[\w(=])"  # "not", where a sentence would have a space
    r"|(?<=[^\w!\-\u2212]))"
)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ASCII_WORDS = "".join(chr(code) if chr(code).isalnum() or chr(code) == "_" else " " for code in range(128))
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that no bit of an earlier word is lost


def words(text: str) -> list[str]:
    """The words in their order."""
    text = _without_punctuation(text.lower())
    if text.isascii():
        return text.translate(_ASCII_WORDS).split()  # as _WORD finds them, in a quarter of the time
    return _WORD.findall(" ".join(_UNSPACED.split(text)))


def marks(text: str) -> list[str]:
    """What is neither word nor punctuation, in its order, and may turn the meaning: numbers, signs, operators, brackets
    of code, emoji."""
    found = _MARK.findall(text)
    if text.isascii():
        return found
    return list(filter(None, map(_meaning, found)))


@lru_cache(MAX_KNOWN_MARKS)
def _meaning(mark: str) -> str:
    """The mark, if it is a number or a symbol; else nothing."""
    if mark == "\u2212":
        return "-"
    is_symbol = mark.isascii() or (unicodedata.category(mark[0])[0] == "S" and mark != "\u00b4")
    return mark if mark[0].isalnum() or is_symbol else ""


def _without_punctuation(text: str) -> str:
    """Quotes and dashes beyond ASCII become spaces: often the text is ASCII but for them."""
    if not text.isascii():
        for char in set(_NOT_ASCII.findall(text)):
            if not _WORD.match(char):
                text = text.replace(char, " ")
    return text


class WordHashes(dict[str, int]):
    """A number of 64 bits for each word, cached for frequent words. Make one object for each step."""

    def __missing__(self, word: str) -> int:
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = int.from_bytes(digest, "little")
        if len(word) <= MAX_KNOWN_WORD_CHARS:
            if len(self) >= MAX_KNOWN_WORDS:
                self.clear()
            self[word] = value
        return value

    def of(self, words: Sequence[str]) -> "NDArray[np.uint64]":
        import numpy as np

        return np.fromiter(map(self.__getitem__, words), np.uint64, len(words))


def runs(hashes: "NDArray[np.uint64]", longest: int) -> Iterator[tuple[int, "NDArray[np.uint64]"]]:
    """For each length from 1 to `longest`, as far as there are so many words: (length, a number for each run)."""
    import numpy as np

    factor = np.uint64(_FACTOR)
    found = hashes
    for length in range(1, min(longest, len(hashes)) + 1):
        if length > 1:
            found = found[:-1] * factor + hashes[length - 1 :]
        yield length, found


def longest_runs(hashes: "NDArray[np.uint64]", length: int) -> "NDArray[np.uint64]":
    """A number for each run of `length` words, or one for all words where there are fewer. Needs a word."""
    found = hashes
    for _, found in runs(hashes, length):  # noqa: B007 - the last is wanted
        pass
    return found
