"""Encodes a text stretch by stretch, and encodes none twice. `text_encoding.py` makes the encoder.

A byte-level BPE tokenizer first cuts a text into words, and no word crosses from a visible character to the space after
it. So the ids of a text are those of its stretches of spaces-then-characters, one behind the other. The encoder
remembers each stretch: on prose that is several times faster than to encode the text. For a tokenizer that may work
otherwise there is no such encoder.

It encodes one text at a time. That never starts the library's thread pool, so a forked process (a Celery worker) cannot
hang on threads that it did not inherit, and a process uses one core.
"""

import json
import re
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from services.tokens.pre_tokenizers import GPT4O_SPLIT, LLAMA3_SPLIT, QWEN2_SPLIT, QWEN35_SPLIT, TEKKEN_SPLIT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPLITS = (LLAMA3_SPLIT, QWEN2_SPLIT, QWEN35_SPLIT, GPT4O_SPLIT, TEKKEN_SPLIT)  # no word goes on after a space
# Cuts come only before white space on which `re` and the library's expressions agree; on U+001C they do not.
_BEFORE_SPACE_OR_LINE_END = re.compile(r"\s*\S+(?:[^\S \n]\s*(?:\S+|\Z))*|\s+")
_BEFORE_SPACE = re.compile(r"\s*\S+(?:[^\S ]\s*(?:\S+|\Z))*|\s+")  # the words of Llama 3 take line ends along
_SPACE = re.compile(r"\s")
_MAX_CACHED = 200_000  # stretches: about 60 MB
_MAX_CACHED_CHARS = 64  # a longer stretch hardly comes twice
_MAX_COUNTED = 256  # contents of messages
_MAX_COUNTED_CHARS = 65_536


class StretchEncoder:
    """Encodes the texts of one tokenizer, without the tokens that it puts in front of a text. Safe to use from several
    threads."""

    def __init__(self, backend: "Tokenizer", stretch: "re.Pattern[str]") -> None:
        """`stretch` is the `stretch_pattern` of the tokenizer."""
        self._stretch = stretch
        self._added = _added_pattern(backend)
        self._can_cut = not any(map(_SPACE.search, _added_texts(backend)))
        self._known = _Stretches(backend)
        self._contents: dict[str, _Content] = {}

    def ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        return list(chain.from_iterable(map(self._known.__getitem__, self._parts(text))))

    def count(self, text: str, contents: Iterable[str] = ()) -> int:
        """`len(ids(text))`, faster. `contents` stand in the text in this order, and in other texts that are counted."""
        total, done = 0, 0
        for content in contents:
            inside = self._counted(content)
            if inside.num_tokens and (at := text.find(content, done)) >= 0:
                total += self._num_tokens(text[done : at + inside.start]) + inside.num_tokens
                done = at + inside.end
        return total + self._num_tokens(text[done:])

    def _num_tokens(self, text: str) -> int:
        return sum(map(len, map(self._known.__getitem__, self._parts(text))))

    def _counted(self, content: str) -> "_Content":
        """A conversation is counted as a whole, pair by pair and in pieces: each content of it only once."""
        if (known := self._contents.get(content)) is None:
            start, end = (_first_cut(content), _last_cut(content)) if self._can_cut else (0, 0)
            known = _Content(start, end, self._num_tokens(content[start:end]))
            if len(self._contents) >= _MAX_COUNTED:
                self._contents.clear()
            if len(content) <= _MAX_COUNTED_CHARS:
                self._contents[content] = known
        return known

    def _parts(self, text: str) -> list[str]:
        """The stretches and the added tokens of a text, in order."""
        if self._added is None:
            return self._stretch.findall(text)
        parts: list[str] = []
        for number, part in enumerate(self._added.split(text)):
            if number % 2:
                parts.append(part)
            else:
                parts += self._stretch.findall(part)
        return parts


class _Content(NamedTuple):
    """What of a content is the same stretches wherever it stands: from its first cut to its last."""

    start: int
    end: int
    num_tokens: int


def _first_cut(text: str) -> int:
    """The first space behind a visible character; 0 if there is none."""
    at = text.find(" ", 1)
    while at > 0 and text[at - 1].isspace():
        at = text.find(" ", at + 1)
    return max(at, 0)


def _last_cut(text: str) -> int:
    at = text.rfind(" ", 1)
    while at > 0 and text[at - 1].isspace():
        at = text.rfind(" ", 1, at)
    return max(at, 0)


class _Stretches(dict[str, tuple[int, ...]]):
    """The ids of each stretch. It remembers stretches that may come again."""

    def __init__(self, backend: "Tokenizer") -> None:
        super().__init__()
        self._backend = backend

    def __missing__(self, stretch: str) -> tuple[int, ...]:
        ids = tuple(self._backend.encode(stretch, add_special_tokens=False).ids)
        if len(self) >= _MAX_CACHED:
            self.clear()
        if len(stretch) <= _MAX_CACHED_CHARS:
            self[stretch] = ids
        return ids


def stretch_pattern(backend: "Tokenizer") -> "re.Pattern[str] | None":
    """A pattern that cuts a text where this tokenizer always cuts it; None for an unknown kind of tokenizer."""
    if type(backend.model).__name__ != "BPE" or not _added_are_plain(backend):
        return None
    parts, normal_parts = _parts_in(backend.pre_tokenizer), _parts_in(backend.normalizer)
    kinds = [part["type"] for part in parts]
    if any(part.get("add_prefix_space") for part in parts):
        return None
    normal = [part["type"] for part in normal_parts]
    if kinds in (["ByteLevel"], ["Digits", "ByteLevel"]) and parts[-1]["use_regex"] and normal in ([], ["NFC"]):
        return _BEFORE_SPACE_OR_LINE_END
    if kinds == ["Split", "ByteLevel"] and _is_known_split(parts) and normal in ([], ["NFC"]):
        return _BEFORE_SPACE
    return None


def _is_known_split(parts: list[dict[str, Any]]) -> bool:
    split, byte_level = parts
    known = split["pattern"].get("Regex") in _SPLITS and split["behavior"] == "Isolated" and not split["invert"]
    return known and not byte_level["use_regex"]


def _added_are_plain(backend: "Tokenizer") -> bool:
    """Whether no added token takes white space beside it, needs word bounds, or is matched in normalised text, and all
    are looked for at once: the library looks for those that are matched as written before the others."""
    added = backend.get_added_tokens_decoder().values()
    if len({token.normalized for token in added}) > 1:
        return False
    if any(token.lstrip or token.rstrip or token.single_word for token in added):
        return False
    return backend.normalizer is None or not any(token.normalized for token in added)


def _added_texts(backend: "Tokenizer") -> set[str]:
    return {token.content for token in backend.get_added_tokens_decoder().values()}


def _added_pattern(backend: "Tokenizer") -> "re.Pattern[str] | None":
    texts = sorted(_added_texts(backend), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, texts))})") if texts else None


def _parts_in(component: Any) -> list[dict[str, Any]]:
    """As `parts_of`. The vocabulary is not written with it: a million objects."""
    return parts_of(None if component is None else json.loads(component.__getstate__()))


def parts_of(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The members of a serialised pre-tokenizer or normalizer: of a sequence, a single one, or none."""
    if component is None:
        return []
    if component["type"] == "Sequence":
        members = component.get("pretokenizers") or component.get("normalizers") or []
        return [part for member in members for part in parts_of(member)]
    return [component]
