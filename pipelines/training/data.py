"""Conversations → the trainer's data: token ids, and labels for supervised tokens. `prepare` is the entry point.

The tokenizer is the one that serving uses, so that training and serving see the same tokens. This module packs
conversations, best fit first, into sequences of at most `seq_len` tokens. A sequence keeps the lengths of its
conversations; from these the trainer makes positions that begin at 0 and attention that ends at each conversation's
borders. Rows without supervised tokens fill up the last step, so that every step of every epoch has the same number of
sequences, on any number of devices.

`prepare` writes the data to a folder of this machine. All processes read it from there; none holds all of it in memory.
`inspect` only counts: `chatserver train preview` shows what it finds.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.training.records import Record, Refusal, read_records
from pipelines.training.reporting import Aborted, BadData
from pipelines.training.samples import (
    IGNORED,
    LoadTokenizer,
    Sample,
    Sampled,
    sampled_by_many,
    sampled_here,
)
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from services.tokens.tokenization import ChatTokenizer

NUM_SHOWN = 3  # conversations whose learnt text is printed
NUM_TOLD = 5  # refused records that are told
MANY_BYTES = 16 * 1_048_576  # of data: from here on starting more processes pays
_SHOWN_CHARS = 300
_BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a conversation's text as the tokenizer decodes it, and whether it is learnt."""

    text: str
    learnt: bool


@dataclass
class Counts:
    """Counts over the records that were read."""

    records: int = 0
    refused: dict[str, int] = field(default_factory=dict)  # reason → number
    told: list[str] = field(default_factory=list)  # the first refusals: where and why
    faulty_file: str = ""  # of the first refusal
    unreadable: bool = False  # the first refusal is no conversation at all
    examples: int = 0  # conversations that can be trained on
    samples: int = 0  # sequences that they are trained as
    evaluated: int = 0  # samples that are kept for evaluation
    tokens: int = 0
    supervised_tokens: int = 0
    truncated: int = 0
    cut_tokens: int = 0
    unsupervised: int = 0
    unwanted: int = 0  # conversations of which no answer shall be learnt
    prompts: int = 0  # different ones of judged answers that are trained on
    evaluated_prompts: int = 0
    good: int = 0  # rated answers that are trained on, by their label
    bad: int = 0
    unused: dict[str, int] = field(default_factory=dict)  # field that changes nothing → records that have it
    left_out: dict[str, int] = field(default_factory=dict)  # what the template does not write → records that have it
    shown: list[str] = field(default_factory=list)

    @property
    def num_refused(self) -> int:
        return sum(self.refused.values())

    def as_event(self) -> dict[str, Any]:
        """The numbers for the event `plan`, which the job's page shows."""
        told = asdict(self)
        rated = {"good": self.good, "bad": self.bad} if self.good or self.bad else {}
        return {name: told[name] for name in _TOLD} | {"refused": self.num_refused, "refusals": self.refused} | rated


_TOLD = (
    "examples",
    "samples",
    "evaluated",
    "tokens",
    "supervised_tokens",
    "truncated",
    "unsupervised",
    "unused",
    "left_out",
)


@dataclass(frozen=True)
class Prepared:
    """`folder` holds the data sets `train` and, if anything is evaluated, `eval`."""

    folder: Path
    counts: Counts
    num_sequences: int  # of one epoch: a multiple of those of a step, or the number of pairs

    def steps(self, config: TrainingConfig, sequences_per_step: int) -> int:
        return config.max_steps or math.ceil(config.epochs * math.ceil(self.num_sequences / sequences_per_step))


def prepare(
    paths: Sequence[Path],
    tokenizer: ChatTokenizer,
    config: TrainingConfig,
    sequences_per_step: int,
    folder: Path,
    *,
    vocabulary: int = 0,
    load: LoadTokenizer | None = None,
) -> Prepared:
    """Read, tokenize, split and pack, into an existing folder.

    `vocabulary`: the token ids that the model has; 0 if unknown. `load` makes the same tokenizer in other processes,
    which share the work of a large input. Raises ConfigurationError for data that is none, Aborted for data that would
    do harm.
    """
    counts = Counts()
    rows = _written(_rows(paths, tokenizer, config, counts, vocabulary, load), folder / "rows.arrow")
    check_counts(counts, config)
    train = _arranged(part_of(rows, evaluated=False), config)
    train = _filled(train, sequences_per_step, tokenizer.stop_token_ids[0])
    train.save_to_disk(str(folder / "train"))
    if counts.evaluated:
        evaluated = _arranged(part_of(rows, evaluated=True), config)
        _filled(evaluated, sequences_per_step, tokenizer.stop_token_ids[0]).save_to_disk(str(folder / "eval"))
    return Prepared(folder, counts, len(train))


def inspect(
    paths: Sequence[Path],
    tokenizer: ChatTokenizer,
    config: TrainingConfig,
    num_examples: int,
    load: LoadTokenizer,
    *,
    vocabulary: int = 0,
) -> tuple[Counts, list[tuple[str, list[Stretch]]]]:
    """Counts over the data, and its first conversations in stretches. Nothing is written or refused."""
    counts = Counts()
    examples: list[tuple[str, list[Stretch]]] = []
    for sampled, sample, only_evaluated in _samples(paths, tokenizer, config, counts, vocabulary, load):
        counts.evaluated += only_evaluated or is_evaluated(sampled.identity, config.eval_fraction)
        if len(examples) < num_examples:
            examples.append((sampled.where, stretches_of(tokenizer, sample)))
    return counts, examples


def read_samples(paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig) -> Iterator[Sample]:
    """Every sample that holds something to learn."""
    for _, sample, _ in _samples(paths, tokenizer, config, Counts(), 0, None):
        yield sample


def lines_of(counts: Counts, config: TrainingConfig) -> Iterator[str]:
    """Lines for people: what is learnt, and what is not."""
    apart = f" in {counts.samples:,} samples" if counts.samples != counts.examples else ""
    yield (
        f"{counts.examples:,} conversations{apart}, {counts.tokens:,} tokens, "
        f"of which {counts.supervised_tokens:,} are learnt; "
        f"{counts.evaluated:,} conversations are only evaluated."
    )
    if counts.truncated:
        yield (
            f"{counts.truncated:,} conversations are longer than seq_len={config.seq_len} and were cut there: "
            f"{counts.cut_tokens:,} tokens are lost."
        )
    if counts.unsupervised:
        yield f"{counts.unsupervised:,} conversations have no token to learn and were dropped."
    if counts.unwanted:
        yield f"{counts.unwanted:,} conversations say of each answer that it shall not be learnt, and were dropped."
    yield from lines_of_losses(counts, config)


def lines_of_losses(counts: Counts, config: TrainingConfig) -> Iterator[str]:
    """What of the data changes nothing, is left out, or is refused."""
    for name, number in counts.unused.items():
        yield f"{number:,} records have {name}, which changes nothing here."
    for name, number in counts.left_out.items():
        yield (
            f"{number:,} records have {name} for which the chat template has no place (thinking={config.thinking}): "
            "it is left out, and not learnt."
        )
    for reason, number in counts.refused.items():
        yield f"{number:,} of {counts.records:,} records were refused: {reason}."
    for told in counts.told:
        yield f"Refused: {told}"


def is_evaluated(conversation_id: str, fraction: float) -> bool:
    """By a hash of its id: the same conversation falls on the same side, whatever else the data holds."""
    digest = hashlib.sha256(conversation_id.encode()).digest()
    return int.from_bytes(digest[:8]) < fraction * 2**64


def stretches_of(tokenizer: ChatTokenizer, sample: Sample) -> list[Stretch]:
    """A sample's text, decoded stretch by stretch."""
    pairs = zip(sample.ids.tolist(), sample.labels.tolist(), strict=True)
    found = []
    for learnt, stretch in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        text = tokenizer.decoder().decode([token for token, _ in stretch], skip_special_tokens=False)
        found.append(Stretch(text, learnt))
    return found


def _samples(
    paths: Sequence[Path],
    tokenizer: ChatTokenizer,
    config: TrainingConfig,
    counts: Counts,
    vocabulary: int,
    load: LoadTokenizer | None,
) -> Iterator[tuple[Sampled, Sample, bool]]:
    """Every sample that holds something to learn, with its record, and whether its file is only evaluated."""
    first_evaluated = len(paths) - config.eval_files
    if first_evaluated < 1:
        raise ConfigurationError(f"eval_files={config.eval_files} of {len(paths)} files leaves nothing to train on")
    for number, path in enumerate(paths):
        unused: Counter[str] = Counter()
        for found in _sampled(read_records(path, unused), path, tokenizer, config, load):
            counts.records += 1
            if isinstance(found, Refusal):
                refuse(counts, found)
                continue
            counts.examples += 1
            for name in sorted(found.left_out):
                counts.left_out[name] = counts.left_out.get(name, 0) + 1
            for sample in found.samples:
                if _counted(counts, found, sample, config):
                    _check_ids(tokenizer, sample, found.where, vocabulary)
                    yield found, sample, number >= first_evaluated
        for name, times in unused.items():
            counts.unused[name] = counts.unused.get(name, 0) + times


def _sampled(
    found: Iterator[Record | Refusal],
    path: Path,
    tokenizer: ChatTokenizer,
    config: TrainingConfig,
    load: LoadTokenizer | None,
) -> Iterator[Sampled | Refusal]:
    if load is not None and path.stat().st_size >= MANY_BYTES and len(os.sched_getaffinity(0)) > 1:
        return sampled_by_many(found, load, config)
    return sampled_here(found, tokenizer, config)


def refuse(counts: Counts, found: Refusal) -> None:
    """Count a record that cannot be trained on; the first ones are told."""
    counts.unreadable |= not counts.num_refused and not found.readable
    counts.faulty_file = counts.faulty_file or found.where.rpartition(":")[0]
    counts.refused[found.reason] = counts.refused.get(found.reason, 0) + 1
    if len(counts.told) < NUM_TOLD:
        counts.told.append(f"{found.where}: {found.detail}")


def _counted(counts: Counts, found: Sampled, sample: Sample, config: TrainingConfig) -> bool:
    """Whether the sample holds a token to learn. The first token follows nothing that could tell it."""
    counts.samples += 1
    counts.truncated += sample.length > config.seq_len
    counts.cut_tokens += sample.length - len(sample.ids)
    supervised = int((sample.labels != IGNORED).sum())
    if not supervised or (supervised == 1 and sample.labels[0] != IGNORED):
        counts.unsupervised += found.wanted
        counts.unwanted += not found.wanted
        return False
    counts.tokens += len(sample.ids)
    counts.supervised_tokens += supervised
    return True


def _check_ids(tokenizer: ChatTokenizer, sample: Sample, where: str, vocabulary: int) -> None:
    highest = int(sample.ids.max())
    if vocabulary and highest >= vocabulary:
        token = tokenizer.decoder().id_to_token(highest)
        raise ConfigurationError(
            f"{where}: the tokenizer gives {token!r} the id {highest}, and the model has embeddings for {vocabulary} "
            "ids: model and tokenizer do not belong together; take the tokenizer's files from the model's own source"
        )


def _rows(
    paths: Sequence[Path],
    tokenizer: ChatTokenizer,
    config: TrainingConfig,
    counts: Counts,
    vocabulary: int,
    load: LoadTokenizer | None,
) -> Iterator[tuple[Sample, bool]]:
    for found, sample, only_evaluated in _samples(paths, tokenizer, config, counts, vocabulary, load):
        evaluated = only_evaluated or is_evaluated(found.identity, config.eval_fraction)
        counts.evaluated += evaluated
        if len(counts.shown) < NUM_SHOWN:
            counts.shown.append(f"{found.where}: {_learnt_text(tokenizer, sample)}")
        yield sample, evaluated


def _learnt_text(tokenizer: ChatTokenizer, sample: Sample) -> str:
    """The decoded stretches that are learnt, each in quotes."""
    texts = [stretch.text for stretch in stretches_of(tokenizer, sample) if stretch.learnt]
    return " … ".join(repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…") for text in texts)


def check_counts(counts: Counts, config: TrainingConfig) -> None:
    """Raises ConfigurationError for data that is none, Aborted for data that would do harm."""
    if not counts.records:
        raise ConfigurationError("the data holds no conversation; give the JSONL files that cleaning wrote")
    check_refused(counts, config)
    fraction = counts.unsupervised / max(counts.samples, 1)
    if fraction > config.max_unsupervised:
        raise Aborted(
            f"{counts.unsupervised:,} of {counts.samples:,} conversations ({fraction:.1%}) have no token to learn "
            f"within seq_len={config.seq_len}; max_unsupervised={config.max_unsupervised} allows fewer: "
            "look for conversations without an answer, or raise seq_len"
        )
    if counts.samples - counts.unsupervised - counts.unwanted == counts.evaluated:
        raise ConfigurationError(
            f"nothing is left to train on: eval_fraction={config.eval_fraction} takes all, or no answer shall be learnt"
        )


def check_refused(counts: Counts, config: TrainingConfig) -> None:
    """Raises ConfigurationError or Aborted if more records cannot be trained on than the configuration allows."""
    fraction = counts.num_refused / counts.records
    if fraction <= config.max_refused:
        return
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in counts.refused.items())
    message = (
        f"{counts.told[0]}; {counts.num_refused:,} of {counts.records:,} records ({fraction:.1%}) cannot be trained on "
        f"({reasons}), and max_refused={config.max_refused} allows fewer"
    )
    if counts.unreadable:
        raise BadData(f"{message}: train on what `chatserver clean` wrote, which leaves such out", counts.faulty_file)
    raise Aborted(message, counts.faulty_file)


def _written(rows: Iterator[tuple[Sample, bool]], path: Path) -> Any:
    """As Arrow's stream, batch by batch: the library's own writer looks at each number."""
    import pyarrow
    from datasets import Dataset

    tokens = pyarrow.list_(pyarrow.int32())
    schema = pyarrow.schema([("input_ids", tokens), ("labels", tokens), ("evaluated", pyarrow.bool_())])
    num = 0
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
        for batch in _batches(rows):
            writer.write_batch(_arrow(batch, schema))
            num += len(batch)
    return Dataset.from_file(str(path)) if num else None


def _batches(rows: Iterator[tuple[Sample, bool]]) -> Iterator[list[tuple[Sample, bool]]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _arrow(batch: Sequence[tuple[Sample, bool]], schema: Any) -> Any:
    import numpy as np
    import pyarrow

    samples = [sample for sample, _ in batch]
    offsets = np.cumsum([0, *(len(sample.ids) for sample in samples)], dtype=np.int32)
    columns = [np.concatenate([getattr(sample, name) for sample in samples]) for name in ("ids", "labels")]
    lists = [pyarrow.ListArray.from_arrays(offsets, column) for column in columns]
    return pyarrow.RecordBatch.from_arrays([*lists, pyarrow.array([flag for _, flag in batch])], schema=schema)


def part_of(rows: Any, *, evaluated: bool) -> Any:
    """The rows that are evaluated, or the others."""
    kept = rows.filter(lambda flags: [flag == evaluated for flag in flags], input_columns="evaluated", batched=True)
    return kept.remove_columns("evaluated")


def _arranged(rows: Any, config: TrainingConfig) -> Any:
    """In an order that the seed alone decides; packed, if that is asked for."""
    rows = rows.shuffle(seed=config.seed)
    if not config.packing:
        return rows
    from trl.data_utils import pack_dataset

    return pack_dataset(rows, config.seq_len, "bfd").shuffle(seed=config.seed)


def _filled(rows: Any, sequences_per_step: int, any_token: int) -> Any:
    from datasets import Dataset, concatenate_datasets

    missing = -len(rows) % sequences_per_step
    if not missing:
        return rows
    empty = {"input_ids": [[any_token]] * missing, "labels": [[IGNORED]] * missing}
    if "seq_lengths" in rows.column_names:
        empty["seq_lengths"] = [[1]] * missing
    return concatenate_datasets([rows, Dataset.from_dict(empty, features=rows.features)])
