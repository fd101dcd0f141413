"""Counts over a set of conversations that can be added up: the histograms of the report and of `clean stats`.

Lengths are counted in fixed buckets, four for each factor of two, so that a bucket means the same in every run.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pipelines.records.conversation import Conversation

BUCKETS_PER_OCTAVE = 4


def bucket(length: int) -> int:
    """The bucket of a length: 0 for 0, then one for each quarter of an octave, from `floor_of(bucket)` on."""
    return 0 if length <= 0 else 1 + math.floor(BUCKETS_PER_OCTAVE * math.log2(length) + 1e-9)


def floor_of(number: int) -> int:
    """The least length of a bucket."""
    return 0 if number <= 0 else math.ceil(2 ** ((number - 1) / BUCKETS_PER_OCTAVE) - 1e-9)


class Statistics:
    """Counts over conversations."""

    def __init__(self) -> None:
        self.records = 0
        self.turns = 0
        self.chars = 0
        self.tokens = 0
        self.turns_of_record: Counter[int] = Counter()
        self.chars_of_turn: dict[str, Counter[int]] = {"user": Counter(), "assistant": Counter()}
        self.chars_of_record: Counter[int] = Counter()
        self.tokens_of_record: Counter[int] = Counter()
        self.languages: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()

    def add(self, conversation: Conversation) -> None:
        """Count one. Its language and number of tokens are known when a step has found them."""
        num_chars = conversation.num_chars()
        self.records += 1
        self.turns += len(conversation.turns)
        self.chars += num_chars
        self.turns_of_record[len(conversation.turns)] += 1
        self.chars_of_record[bucket(num_chars)] += 1
        for turn in conversation.turns:
            if turn.role in self.chars_of_turn:
                self.chars_of_turn[turn.role][bucket(len(turn.text))] += 1
        if isinstance(tokens := conversation.extra.get("num_tokens"), int):
            self.tokens += tokens
            self.tokens_of_record[bucket(tokens)] += 1
        if isinstance(language := conversation.extra.get("language"), str):
            self.languages[language] += 1
        if conversation.model:
            self.models[conversation.model] += 1
        self.sources[conversation.source.file] += 1

    def as_dict(self) -> dict[str, Any]:
        """JSON; the keys of a histogram are the least length of each bucket."""
        return {
            "records": self.records,
            "turns": self.turns,
            "chars": self.chars,
            "tokens": self.tokens,
            "turns_of_record": {str(number): count for number, count in sorted(self.turns_of_record.items())},
            "chars_of_turn": {role: _lengths(counts) for role, counts in self.chars_of_turn.items()},
            "chars_of_record": _lengths(self.chars_of_record),
            "tokens_of_record": _lengths(self.tokens_of_record),
            "languages": dict(sorted(self.languages.items())),
            "models": dict(sorted(self.models.items())),
            "sources": dict(sorted(self.sources.items())),
        }


def _lengths(counts: Counter[int]) -> dict[str, int]:
    return {str(floor_of(number)): count for number, count in sorted(counts.items())}


def statistics_of(conversations: Iterable[Conversation]) -> Statistics:
    found = Statistics()
    for conversation in conversations:
        found.add(conversation)
    return found
