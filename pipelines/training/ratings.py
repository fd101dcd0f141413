"""Single answers that people rated good or bad → the trainer's data, for objective=kto.

    {"prompt": …, "completion": …, "label": true}                  TRL: texts, or lists of messages
    {"messages": [… {"role": "assistant", "content": …, "label": false}]}   a conversation: each answer with a label
    {"messages": […], "label": true}                               a conversation: the label of its last answer
    a pair of answers, as `preferences` reads them                 the chosen one is good, the rejected one bad

A conversation may have any shape that cleaning reads, and each record tools, calls, results and reasoning, as
`records.py` reads them. KTO measures how far the model went from its beginning at answers
to other prompts. Each row brings such an answer along: the nearest before it, in a circle, of another prompt. So it is
the same whatever a device takes at once. TRL turns the answers within a device's batch, where a batch of one, or one of
answers to a single prompt, would measure the answers themselves.

`objectives` calls it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.formats import foreign
from pipelines.formats.records import BadRecord
from pipelines.formats.shapes import TURN_KEYS
from pipelines.records.conversation import Conversation, Source
from pipelines.training.data import Counts, Prepared, Stretch, lines_of_losses
from pipelines.training.judged import (
    EMPTY,
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
from pipelines.training.preferences import holds_pair, read_pair
from pipelines.training.records import read_dialogue
from services.errors import ConfigurationError, shown
from services.jobs.training import TrainingConfig
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message

SHAPE = "no rated answer"
LABEL = "a label that is not true or false"
LOST_LABEL = "labels of turns that were cut"
FEW = 16  # answers of a step
MOST_IMBALANCE = 4 / 3  # of good to bad answers, with their weights; the least is 1 (KTO, equation 8)


@dataclass(frozen=True)
class Rated:
    """A prompt (it ends with a user's message or a tool's result), an answer, and whether people found it good."""

    prompt: tuple[Message, ...]
    answer: Message
    good: bool
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class RatedRow:
    """A rated answer as token ids. It ends where `seq_len` does; `length` is that before the cut."""

    prompt_ids: list[int]
    answer_ids: list[int]
    good: bool
    length: int
    left_out: frozenset[str] = frozenset()

    @property
    def answers(self) -> tuple[list[int]]:
        return (self.answer_ids,)

    def columns(self) -> dict[str, Any]:
        return {"prompt_ids": self.prompt_ids, "completion_ids": self.answer_ids, "label": self.good}

    def stretches(self, tokenizer: ChatTokenizer) -> list[Stretch]:
        """The prompt and the answer with its rating. A bad answer is not what is learnt."""
        answer = text_of(tokenizer, self.answer_ids)
        rated = Stretch(answer, True) if self.good else Stretch(f"not: {answer}", False)
        return [Stretch(text_of(tokenizer, self.prompt_ids), False), rated]

    def line(self, tokenizer: ChatTokenizer) -> str:
        return f"{text_of(tokenizer, self.answer_ids)[:SHOWN_CHARS]!r} is {_word(self.good)}"

    def count(self, counts: Counts) -> None:
        counts.good += self.good
        counts.bad += not self.good


def prepare_ratings(paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, folder: Path) -> Prepared:
    """Read and tokenize into an existing folder, in an order that the seed alone decides.

    Raises ConfigurationError for data from which KTO cannot learn, Aborted where more are unusable than `max_refused`.
    """
    from datasets import List, Value

    counts, tokens = Counts(), List(Value("int32"))
    data = JudgedData(paths, tokenizer, config, _rows, counts)
    features = {"prompt_ids": tokens, "completion_ids": tokens, "label": Value("bool")}
    rows = data.written(folder / "rows.arrow", features)
    check_ratings(counts, config)
    return saved(rows, counts, config, folder, _with_answers_to_others)


def inspect_ratings(
    paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, num_examples: int
) -> tuple[Counts, list[tuple[str, list[Stretch]]]]:
    """Counts over the data, and its first answers in stretches. Nothing is written or refused."""
    counts = Counts()
    return counts, JudgedData(paths, tokenizer, config, _rows, counts).examples(num_examples)


def check_ratings(counts: Counts, config: TrainingConfig) -> None:
    """Raises ConfigurationError for data from which KTO cannot learn, Aborted for too many records that are refused."""
    remedy = "give records with prompt, completion and label, or conversations whose answers have a label"
    check_judged(counts, config, what="rated answer", remedy=remedy)
    if not (counts.good and counts.bad):
        only = _word(bool(counts.good))
        raise ConfigurationError(
            f"all {counts.good + counts.bad:,} answers to train on are {only}: objective=kto learns from good and bad "
            "answers; add the others, or learn the good ones alone with objective=answers"
        )
    if counts.prompts < 2 or (counts.evaluated and counts.evaluated_prompts < 2):
        where = "to train on" if counts.prompts < 2 else "of the evaluation"
        raise ConfigurationError(
            f"all answers {where} have one prompt: objective=kto compares them with answers to other prompts; "
            "add such, or change eval_fraction"
        )


def lines_of_ratings(counts: Counts, config: TrainingConfig) -> Iterator[str]:
    """Lines for people: what is rated, how the two kinds weigh, and what is not used."""
    yield (
        f"{counts.examples:,} rated answers, {counts.tokens:,} tokens, of which {counts.supervised_tokens:,} are "
        f"rated; {counts.evaluated:,} answers are only evaluated."
    )
    yield f"To train on: {counts.good:,} good and {counts.bad:,} bad answers to {counts.prompts:,} prompts."
    if counts.good and counts.bad:
        yield _balance(counts, config)
    num = math.ceil(config.tokens_per_step / config.row_tokens)
    if num < FEW:
        yield (
            f"A step has {num} answers, over which the KL term is a mean; TRL's authors advise {FEW} to 128: "
            f"raise tokens_per_step to {FEW * config.row_tokens:,} or more."
        )
    if counts.truncated:
        yield f"{counts.truncated:,} answers are longer than seq_len={config.seq_len} and were cut there."
    yield from lines_of_losses(counts, config)


def _balance(counts: Counts, config: TrainingConfig) -> str:
    """How the good answers weigh against the bad ones, and the weight that brings them into KTO's range."""
    ratio = config.desirable_weight * counts.good / (config.undesirable_weight * counts.bad)
    said = f"All good answers weigh {ratio:.2f} times as much as all bad ones"
    if 1 - 1e-6 <= ratio <= MOST_IMBALANCE + 1e-6:
        return f"{said}; KTO's authors advise 1 to 1.33."
    name = "desirable_weight" if ratio < 1 else "undesirable_weight"
    least = getattr(config, name) * (1 / ratio if ratio < 1 else ratio / MOST_IMBALANCE)
    return f"{said}; KTO's authors advise 1 to 1.33: set {name} between {least:.3g} and {least * MOST_IMBALANCE:.3g}."


# -- reading ---------------------------------------------------------------------------------------------------------


def read_ratings(value: Any) -> list[Rated]:
    """The rated answers of one record. Raises Unusable."""
    if not isinstance(value, dict):
        raise Unusable(SHAPE, f"a record is an object, not {type(value).__name__}")
    if holds_pair(value):
        pair = read_pair(value)
        answers = ((pair.chosen, True), (pair.rejected, False))
        return [Rated(pair.prompt, answer, good, pair.tools) for answer, good in answers]
    if value.get("completion") is not None:
        prompt, answer = conversation_of(value.get("prompt"), value["completion"], SHAPE)
        return [_rated(prompt, answer, value.get("label"), tools_of_record(value.get("tools")))]
    return _of_conversation(value)


def _of_conversation(value: dict[str, Any]) -> list[Rated]:
    try:
        found = read_dialogue(dict(foreign.shown(value).record), Source("", 0), 0, Counter())
    except BadRecord as error:
        raise Unusable(error.reason, str(error)) from None
    messages, labels = found.messages, _labels(found.conversation)
    for number in labels:
        if messages[number].role != "assistant":
            raise Unusable(SHAPE, f"turn {number} has a label and is {shown(messages[number].role)}: answers are rated")
    return [_rated(messages[:number], messages[number], label, found.tools) for number, label in labels.items()]


def _labels(found: Conversation) -> dict[int, Any]:
    """Number of a turn → its label; that of the record is its last turn's. Raises Unusable if there is none."""
    kept = found.extra.get(TURN_KEYS, [])
    keys = [one if isinstance(one, dict) else {} for one in kept] if isinstance(kept, list) else []
    if any("label" in one for one in keys):
        if len(keys) != len(found.turns):
            raise Unusable(LOST_LABEL, f"{TURN_KEYS}: the cleaning cut turns; nobody can tell whose these labels are")
        return {number: one["label"] for number, one in enumerate(keys) if "label" in one}
    if "label" not in found.extra:
        raise Unusable(SHAPE, "neither the record nor an answer in it has a label")
    return {len(found.turns) - 1: found.extra["label"]}


def _rated(prompt: tuple[Message, ...], answer: Message, label: Any, tools: tuple[dict[str, Any], ...]) -> Rated:
    check_prompt(prompt, SHAPE)
    if label not in (True, False):
        raise Unusable(LABEL, f"label is {shown(label)}: true is a good answer, false a bad one")
    if says_nothing(answer):
        raise Unusable(EMPTY, "the answer is empty")
    return Rated(prompt, answer, bool(label), tools)


def _rows(value: Any, tokenizer: ChatTokenizer, config: TrainingConfig) -> list[RatedRow]:
    return [_row(rated, tokenizer, config) for rated in read_ratings(value)]


def _row(rated: Rated, tokenizer: ChatTokenizer, config: TrainingConfig) -> RatedRow:
    answer = tokenized(rated.prompt, rated.answer, rated.tools, tokenizer, config)
    room, length = room_after(answer.prompt_ids, config.seq_len), len(answer.prompt_ids) + len(answer.ids)
    return RatedRow(answer.prompt_ids, answer.ids[:room], rated.good, length, answer.left_out)


def _word(good: bool) -> str:
    return "good (label: true)" if good else "bad (label: false)"


# -- answers to other prompts ----------------------------------------------------------------------------------------


def _with_answers_to_others(rows: Any) -> Any:
    """Each row with the answer to another prompt beside which KTO measures the model."""
    from datasets import concatenate_datasets

    prompts = [hash(tuple(prompt)) for prompt in rows["prompt_ids"]]
    others = rows.select(nearest_others(prompts)).select_columns("completion_ids")
    return concatenate_datasets([rows, others.rename_column("completion_ids", "KL_completion_ids")], axis=1)


def nearest_others(prompts: Sequence[int]) -> list[int]:
    """For each prompt the place of the nearest one before it, in a circle, that is another."""
    found: list[int] = []
    for number, prompt in enumerate(prompts):
        if number and prompts[number - 1] == prompt:
            found.append(found[-1])
        else:
            found.append(next(other for other in _before(number, len(prompts)) if prompts[other] != prompt))
    return found


def _before(number: int, num: int) -> Iterator[int]:
    return ((number - step) % num for step in range(1, num))
