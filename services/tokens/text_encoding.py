"""Encodes a text in pieces into the token ids of the whole text. `tokenization.py` calls it.

A piece ends where no token may cross: inside a control token that a user typed, or where a model's own text begins and
ends. Behind an added token a tokenizer starts anew (one of Llama's kind adds a space there). Elsewhere a later piece
continues the text, and no space is added.

Control tokens are the special tokens and the turn marks of the template. Other added tokens are text of a model's own
(`<think>`, Gemma's runs of spaces): they stay whole, as `transformers` encodes them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from services.tokens.reasoning_marks import REASONING_NAME
from services.tokens.stretches import StretchEncoder, parts_of, stretch_pattern

if TYPE_CHECKING:  # the library itself is loaded by whoever makes a tokenizer
    from tokenizers import Tokenizer


class TextEncoder:
    """Encodes with one tokenizer. It adds no token that the text does not spell."""

    def __init__(self, backend: "Tokenizer", turn_marks: Iterable[str] = ()) -> None:
        """`turn_marks` are tokens that no message may spell, besides the special ones."""
        self._backend = backend
        stretch = stretch_pattern(backend)
        self._stretches = StretchEncoder(backend, stretch) if stretch else None
        added = backend.get_added_tokens_decoder().values()
        self._added = tuple(sorted({token.content for token in added}, key=len, reverse=True))
        self._added_pattern = _any_of(self._added)
        self._taking = tuple({token.content for token in added if token.rstrip})
        control = {token.content for token in added if token.special and len(token.content) > 1} | set(turn_marks)
        self._control = _any_of(control)
        self._control_of_others = _any_of(token for token in control if not REASONING_NAME.search(token))

    def spells_control(self, content: str, *, own: bool) -> bool:
        """Whether the text spells a control token. A model's `own` text may spell marks of reasoning."""
        pattern = self._control_of_others if own else self._control
        return pattern is not None and pattern.search(content) is not None

    def defused(self, content: str, mark: str, *, own: bool = False) -> str:
        """`content` with `mark` after the first character of every control token that it spells."""
        pattern = self._control_of_others if own else self._control
        if pattern is None:
            return content
        cuts = [0, *(match.start() + 1 for match in overlapping(pattern, content)), len(content)]
        return mark.join(content[start:end] for start, end in pairwise(cuts))

    def encode(self, pieces: Sequence[str], *, after: str = "") -> list[int]:
        """Token ids of a text in pieces. `after` is the end of the text that was encoded before, if any."""
        if self._stretches is not None:  # no space is added anywhere, and no added token takes one along
            return list(chain.from_iterable(map(self._stretches.ids, pieces)))
        first, *others = pieces
        ids = self._following(first, after) if after else self._ids(first)
        for other in others:
            ids += self._continued(other)
        return ids

    def count(self, pieces: Sequence[str], contents: Iterable[str] = ()) -> int:
        """`len(encode(pieces))`, faster. `contents`: texts in there, in their order, that will be counted again."""
        if self._stretches is not None and len(pieces) == 1:
            return self._stretches.count(pieces[0], contents)
        if self._stretches is not None:
            return sum(map(self._stretches.count, pieces))
        return len(self.encode(pieces))

    @cached_property
    def _continuing(self) -> "Tokenizer":
        return _without_prefix(self._backend)

    def _following(self, text: str, before: str) -> list[int]:
        """Ids of a text behind another. An added token may take along the white space behind it."""
        stripped = before.rstrip()
        token = next((token for token in self._taking if stripped.endswith(token)), None)
        start = stripped if token else before
        token = token or next((token for token in self._added if before.endswith(token)), None)
        if token is None:
            return self._continued(text)
        ids = self._ids(token + before[len(start) :] + text)
        return ids[1:] if ids[:1] == [self._backend.token_to_id(token)] else self._continued(text)

    def _continued(self, text: str) -> list[int]:
        """Ids of a text that follows another, up to the first added token, where a text starts anew."""
        match = self._added_pattern.search(text) if self._added_pattern else None
        end = match.start() if match else len(text)
        ids = list(self._continuing.encode(text[:end], add_special_tokens=False).ids)
        return ids + self._ids(text[end:]) if match else ids

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)


def _any_of(tokens: Iterable[str]) -> "re.Pattern[str] | None":
    """A pattern of these texts, the longest first."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


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
