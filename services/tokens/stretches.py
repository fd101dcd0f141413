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
from itertools import chain
from typing import TYPE_CHECKING, Any

from services.tokens.pre_tokenizers import GPT4O_SPLIT, LLAMA3_SPLIT, QWEN2_SPLIT, QWEN35_SPLIT, TEKKEN_SPLIT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPLITS = (LLAMA3_SPLIT, QWEN2_SPLIT, QWEN35_SPLIT, GPT4O_SPLIT, TEKKEN_SPLIT)  # no word goes on after a space
# Cuts come only before white space on which `re` and the library's expressions agree; on U+001C they do not.
_BEFORE_SPACE_OR_LINE_END = re.compile(r"\s*\S+(?:[^\S \n]\s*(?:\S+|\Z))*|\s+")
_BEFORE_SPACE = re.compile(r"\s*\S+(?:[^\S ]\s*(?:\S+|\Z))*|\s+")  # the words of Llama 3 take line ends along
_MAX_CACHED = 200_000  # stretches: about 60 MB
_MAX_CACHED_CHARS = 64  # a longer stretch hardly comes twice


class StretchEncoder:
    """Encodes the texts of one tokenizer, without the tokens that it puts in front of a text. Safe to use from several
    threads."""

    def __init__(self, backend: "Tokenizer", stretch: "re.Pattern[str]") -> None:
        """`stretch` is the `stretch_pattern` of the tokenizer."""
        self._stretch = stretch
        self._added = _added_pattern(backend)
        self._known = _Stretches(backend)

    def ids(self, text: str) -> list[int]:
        """The token ids of a text."""
        return list(chain.from_iterable(map(self._known.__getitem__, self._parts(text))))

    def count(self, text: str) -> int:
        """`len(ids(text))`, faster."""
        return sum(map(len, map(self._known.__getitem__, self._parts(text))))

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
    spec = json.loads(backend.to_str())
    if spec["model"]["type"] != "BPE" or not _added_are_plain(spec):
        return None
    parts = parts_of(spec["pre_tokenizer"])
    kinds = [part["type"] for part in parts]
    if any(part.get("add_prefix_space") for part in parts):
        return None
    normal = [part["type"] for part in parts_of(spec["normalizer"])]
    if kinds in (["ByteLevel"], ["Digits", "ByteLevel"]) and parts[-1]["use_regex"] and normal in ([], ["NFC"]):
        return _BEFORE_SPACE_OR_LINE_END
    if kinds == ["Split", "ByteLevel"] and _is_known_split(parts) and normal in ([], ["NFC"]):
        return _BEFORE_SPACE
    return None


def _is_known_split(parts: list[dict[str, Any]]) -> bool:
    split, byte_level = parts
    known = split["pattern"].get("Regex") in _SPLITS and split["behavior"] == "Isolated" and not split["invert"]
    return known and not byte_level["use_regex"]


def _added_are_plain(spec: dict[str, Any]) -> bool:
    """Whether no added token takes white space beside it, needs word bounds, or is matched in normalised text, and all
    are looked for at once: the library looks for those that are matched as written before the others."""
    added = spec["added_tokens"]
    if len({token["normalized"] for token in added}) > 1:
        return False
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added):
        return False
    return not spec["normalizer"] or not any(token["normalized"] for token in added)


def _added_pattern(backend: "Tokenizer") -> "re.Pattern[str] | None":
    texts = sorted({token.content for token in backend.get_added_tokens_decoder().values()}, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, texts))})") if texts else None


def parts_of(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The members of a serialised pre-tokenizer or normalizer: of a sequence, a single one, or none."""
    if component is None:
        return []
    if component["type"] == "Sequence":
        members = component.get("pretokenizers") or component.get("normalizers") or []
        return [part for member in members for part in parts_of(member)]
    return [component]
