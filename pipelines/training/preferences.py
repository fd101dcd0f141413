"""Pairs of answers to one prompt, of which people prefer one → the trainer's data, for objective=dpo.

    {"prompt": …, "chosen": …, "rejected": …}                     TRL: texts, or lists of messages
    {"chosen": [messages], "rejected": [messages]}                 TRL: whole conversations with one prompt
    {"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}   OpenAI

`objectives` calls it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.training.data import Counts, Prepared, Stretch
from pipelines.training.judged import (
    EMPTY,
    REFUSED,
    SHOWN_CHARS,
    JudgedData,
    Unusable,
    check_judged,
    check_prompt,
    conversation_of,
    lines_of_refusals,
    room_after,
    saved,
    text_of,
    tokenized,
)
from services.jobs.training import TrainingConfig
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message

SHAPE = "no pair of answers to one prompt"
EQUAL = "two equal answers"
EQUAL_WHEN_CUT = "the answers differ only beyond seq_len"
_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


@dataclass(frozen=True)
class Pair:
    """A prompt (it ends with a user's message), and the texts of two answers."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class PairRow:
    """A pair as token ids. The answers end where `seq_len` does; `length` is that of the longer one before the cut."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    length: int

    @property
    def answers(self) -> tuple[list[int], list[int]]:
        return self.chosen_ids, self.rejected_ids

    def columns(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COLUMNS}

    def stretches(self, tokenizer: ChatTokenizer) -> list[Stretch]:
        """The prompt, the answer that is preferred, and the other one."""
        prompt, chosen, rejected = (text_of(tokenizer, getattr(self, name)) for name in _COLUMNS)
        return [Stretch(prompt, False), Stretch(chosen, True), Stretch(f"\nrather than: {rejected}", False)]

    def line(self, tokenizer: ChatTokenizer) -> str:
        chosen, rejected = (text_of(tokenizer, ids)[:SHOWN_CHARS] for ids in self.answers)
        return f"{chosen!r} over {rejected!r}"

    def count(self, counts: Counts) -> None:
        """A pair has nothing to count that other rows lack."""


def prepare_pairs(paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, folder: Path) -> Prepared:
    """Read and tokenize into an existing folder, in an order that the seed alone decides.

    Raises ConfigurationError for data that holds no pair, Aborted where more are unusable than `max_refused`.
    """
    from datasets import List, Value

    counts = Counts()
    data = JudgedData(paths, tokenizer, config, _rows, counts)
    rows = data.written(folder / "rows.arrow", dict.fromkeys(_COLUMNS, List(Value("int32"))))
    check_pairs(counts, config)
    return saved(rows, counts, config, folder)


def inspect_pairs(
    paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, num_examples: int
) -> tuple[Counts, list[tuple[str, list[Stretch]]]]:
    """Counts over the data, and its first pairs in stretches. Nothing is written or refused."""
    counts = Counts()
    return counts, JudgedData(paths, tokenizer, config, _rows, counts).examples(num_examples)


def check_pairs(counts: Counts, config: TrainingConfig) -> None:
    """Raises ConfigurationError for data without pairs, Aborted for too many records that are none."""
    check_judged(counts, config, what="pair of answers", remedy="give records with chosen and rejected")


def lines_of_pairs(counts: Counts, config: TrainingConfig) -> Iterator[str]:
    """Lines for people: what is compared, and what is not."""
    yield (
        f"{counts.examples:,} pairs of answers, {counts.tokens:,} tokens, of which {counts.supervised_tokens:,} are "
        f"compared; {counts.evaluated:,} pairs are only evaluated."
    )
    if counts.truncated:
        yield f"{counts.truncated:,} pairs are longer than seq_len={config.seq_len} and were cut there."
    yield from lines_of_refusals(counts)


def holds_pair(value: dict[str, Any]) -> bool:
    """Whether a record says that it is a pair."""
    return any(value.get(name) is not None for name in ("preferred_output", "chosen", "rejected"))


def read_pair(value: Any) -> Pair:
    """The pair of one record. Raises Unusable."""
    if not isinstance(value, dict):
        raise Unusable(SHAPE, f"a record is an object, not {type(value).__name__}")
    if "preferred_output" in value:
        given = value.get("input")
        prompt = given.get("messages") if isinstance(given, dict) else None
        return _pair(prompt, value["preferred_output"], value.get("non_preferred_output"))
    return _pair(value.get("prompt"), value.get("chosen"), value.get("rejected"))


def _pair(prompt: Any, chosen: Any, rejected: Any) -> Pair:
    prompts, answers = zip(*(conversation_of(prompt, side, SHAPE) for side in (chosen, rejected)), strict=True)
    if prompts[0] != prompts[1]:
        raise Unusable(SHAPE, "the two answers have different prompts")
    check_prompt(prompts[0], SHAPE)
    empty = next((name for name, text in zip(("chosen", "rejected"), answers, strict=True) if not text.strip()), "")
    if empty:
        raise Unusable(EMPTY, f"the {empty} answer is empty")
    if answers[0] == answers[1]:
        raise Unusable(EQUAL, "the two answers are equal")
    return Pair(prompts[0], *answers)


def _rows(value: Any, tokenizer: ChatTokenizer, seq_len: int) -> list[PairRow]:
    pair = read_pair(value)
    (prompt, chosen), (other, rejected) = (
        tokenized(pair.prompt, text, tokenizer) for text in (pair.chosen, pair.rejected)
    )
    if prompt != other:
        raise Unusable(REFUSED, "the chat template writes the prompt otherwise before the other answer")
    room = room_after(prompt, seq_len)
    if chosen[:room] == rejected[:room]:
        raise Unusable(EQUAL_WHEN_CUT, f"the first {room:,} tokens of both answers are equal")
    longer = len(prompt) + max(len(chosen), len(rejected))
    return [PairRow(prompt, chosen[:room], rejected[:room], longer)]
