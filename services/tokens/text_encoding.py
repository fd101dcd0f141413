"""Encodes a text in pieces into the token ids of the whole text. `tokenization.py` calls it.

A piece ends where no token may cross: inside a special token that a user typed, or where a model's own text begins and
ends. Behind a special token a tokenizer starts anew (one of Llama's kind adds a space there). Elsewhere a later piece
continues the text, and no space is added.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from services.tokens.token_count import parts_of

if TYPE_CHECKING:  # the library itself is loaded by whoever makes a tokenizer
    from tokenizers import Tokenizer


class TextEncoder:
    """Encodes with one tokenizer. It adds no token that the text does not spell."""

    def __init__(self, backend: "Tokenizer") -> None:
        self._backend = backend
        self._continuing = _without_prefix(backend)
        texts = {token.content for token in backend.get_added_tokens_decoder().values() if len(token.content) > 1}
        self._special = tuple(sorted(texts, key=len, reverse=True))
        self._pattern = re.compile("|".join(map(re.escape, self._special))) if self._special else None

    def defused(self, content: str, mark: str) -> str:
        """`content` with `mark` after the first character of every special token that it spells."""
        if self._pattern is None:
            return content
        cuts = [0, *(match.start() + 1 for match in overlapping(self._pattern, content)), len(content)]
        return mark.join(content[start:end] for start, end in pairwise(cuts))

    def encode(self, pieces: Sequence[str], *, after: str = "") -> list[int]:
        """Token ids of a text in pieces. `after` is the end of the text that was encoded before, if any."""
        first, *others = pieces
        ids = self._following(first, after) if after else self._ids(first)
        for other in others:
            ids += self._continued(other)
        return ids

    def _following(self, text: str, before: str) -> list[int]:
        special = next((special for special in self._special if before.endswith(special)), None)
        return self._continued(text) if special is None else self._ids(special + text)[1:]

    def _continued(self, text: str) -> list[int]:
        """Ids of a text that follows another, up to the first special token, where a text starts anew."""
        match = self._pattern.search(text) if self._pattern else None
        end = match.start() if match else len(text)
        ids = list(self._continuing.encode(text[:end], add_special_tokens=False).ids)
        return ids + self._ids(text[end:]) if match else ids

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)


def overlapping(pattern: "re.Pattern[str]", text: str) -> Iterator["re.Match[str]"]:
    """A match at every place where one begins. `(?=…)` would find them too, but slowly: character by character."""
    match = pattern.search(text)
    while match:
        yield match
        match = pattern.search(text, match.start() + 1)


def _without_prefix(backend: "Tokenizer") -> "Tokenizer":
    """A copy that puts no space before a text: for the later pieces of one text."""
    from tokenizers import Tokenizer

    spec = json.loads(backend.to_str())
    for part in parts_of(spec.get("pre_tokenizer")):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
        if "add_prefix_space" in part:
            part["add_prefix_space"] = False
    kept = [part for part in parts_of(spec.get("normalizer")) if part["type"] != "Prepend"]
    spec["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    return Tokenizer.from_str(json.dumps(spec))
