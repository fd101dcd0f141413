"""Sentences in six languages, filled in from words/*.yaml. Used by answers.py, questions.py and damage.py.

The grammar of a language: frames with slots, and per topic the terms, what they do, and reasons. English has 20 topics:
thousands of sentences of the simplest frame alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench.corpus.dice import Dice

WORDS = Path(__file__).parent / "words"
NAMES = (
    "max_retries", "user_id", "__init__", "batch_size", "timeout_ms", "is_valid", "snake_case", "num_items", "foo.bar",
    "index[0]", "learning_rate", "start_date", "page-size", "DEBUG", "cache_dir", "row_count",
)  # fmt: skip


@dataclass(frozen=True)
class Topic:
    terms: Sequence[str]
    actions: Sequence[str]
    reasons: Sequence[str]


@dataclass(frozen=True)
class Language:
    """One file of words/; its head explains the slots."""

    space: str
    frames: Sequence[str]
    html_frames: Sequence[str]
    questions: Sequence[str]
    follow_ups: Sequence[str]
    code_questions: Sequence[str]
    intros: Sequence[str]
    code_intros: Sequence[str]
    closings: Sequence[str]
    headings: Sequence[str]
    columns: Sequence[str]
    swaps: dict[str, str]
    topics: Sequence[Topic]


@cache
def language(code: str) -> Language:
    words: dict[str, Any] = yaml.safe_load((WORDS / f"{code}.yaml").read_text("utf-8"))
    return Language(**words | {"topics": [Topic(**topic) for topic in words["topics"].values()]})


class Writer:
    """Writes about one topic in one language."""

    def __init__(self, dice: Dice, words: Language) -> None:
        self.dice, self.words = dice, words
        self.topic = dice.pick(words.topics)

    def fill(self, frames: Sequence[str]) -> str:
        """One of `frames` with its slots filled, beginning with a capital letter."""
        pick, topic = self.dice.pick, self.topic
        terms = topic.terms
        text = pick(frames).format(pick(terms), pick(topic.actions), pick(topic.reasons), pick(NAMES), pick(terms))
        return text[0].upper() + text[1:]

    def plain(self) -> str:
        """A sentence without markup."""
        return self.fill(self.words.frames)

    def sentence(self) -> str:
        """A sentence of an answer: HTML, now and then with markup and entities inside."""
        return self.fill(self.words.html_frames if self.dice.chance(0.15) else self.words.frames)

    def sentences(self, low: int, high: int) -> str:
        return self.words.space.join([self.sentence() for _ in range(self.dice.between(low, high))])
