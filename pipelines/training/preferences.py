"""Pairs of answers to one prompt, of which people prefer one → the trainer's data, for objective=dpo.

    {"prompt": …, "chosen": …, "rejected": …}                     TRL: texts, or lists of messages
    {"chosen": [messages], "rejected": [messages]}                 TRL: whole conversations with one prompt
    {"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}   OpenAI

`tools` may stand beside, or in OpenAI's `input`. Messages may have reasoning, calls of tools and results, as
`records.py` reads them.

`objectives` calls it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.training.data import Counts, Prepared, Stretch, lines_of_losses
from pipelines.training.judged import (
    EMPTY,
    REFUSED,
    SHOWN_CHARS,
    JudgedData,
    Unusable,
    check_judged,
    check_prompt,
    conversation_of,
    room_after,
    saved,
    says_nothing,
    text_of,
    tokenized,
    tools_of_record,
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
    """A prompt (it ends with a user's message or a tool's result), two answers, and the tools of all."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class PairRow:
    """A pair as token ids. The answers end where `seq_len` does; `length` is that of the longer one before the cut."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    length: int
    left_out: frozenset[str] = frozenset()

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
    yield from lines_of_losses(counts, config)


def holds_pair(value: dict[str, Any]) -> bool:
    """Whether a record says that it is a pair."""
    return any(value.get(name) is not None for name in ("preferred_output", "chosen", "rejected"))


def read_pair(value: Any) -> Pair:
    """The pair of one record. Raises Unusable."""
    if not isinstance(value, dict):
        raise Unusable(SHAPE, f"a record is an object, not {type(value).__name__}")
    if "preferred_output" in value:
        given = value.get("input")
        given = given if isinstance(given, dict) else {}
        tools = given.get("tools", value.get("tools"))
        return _pair(given.get("messages"), value["preferred_output"], value.get("non_preferred_output"), tools)
    return _pair(value.get("prompt"), value.get("chosen"), value.get("rejected"), value.get("tools"))


def _pair(prompt: Any, chosen: Any, rejected: Any, tools: Any) -> Pair:
    (asked, good), (also_asked, bad) = (conversation_of(prompt, side, SHAPE) for side in (chosen, rejected))
    if asked != also_asked:
        raise Unusable(SHAPE, "the two answers have different prompts")
    check_prompt(asked, SHAPE)
    if empty := next((name for name, answer in (("chosen", good), ("rejected", bad)) if says_nothing(answer)), ""):
        raise Unusable(EMPTY, f"the {empty} answer is empty")
    if good == bad:
        raise Unusable(EQUAL, "the two answers are equal")
    return Pair(asked, good, bad, tools_of_record(tools))


def _rows(value: Any, tokenizer: ChatTokenizer, config: TrainingConfig) -> list[PairRow]:
    pair = read_pair(value)
    chosen, rejected = (
        tokenized(pair.prompt, answer, pair.tools, tokenizer, config) for answer in (pair.chosen, pair.rejected)
    )
    prompt = chosen.prompt_ids
    if prompt != rejected.prompt_ids:
        raise Unusable(REFUSED, "the chat template writes the prompt otherwise before the other answer")
    if chosen.ids == rejected.ids:
        raise Unusable(EQUAL, "the chat template writes both answers alike")
    room = room_after(prompt, config.seq_len)
    if chosen.ids[:room] == rejected.ids[:room]:
        raise Unusable(EQUAL_WHEN_CUT, f"the first {room:,} tokens of both answers are equal")
    longer = len(prompt) + max(len(chosen.ids), len(rejected.ids))
    left_out = chosen.left_out | rejected.left_out
    return [PairRow(prompt, chosen.ids[:room], rejected.ids[:room], longer, left_out)]
