"""Conversations → the trainer's data: token ids, and labels for supervised tokens. `prepare` is the entry point.

The tokenizer is the one that serving uses, so that training and serving see the same tokens. This module packs
conversations, best fit first, into sequences of at most `seq_len` tokens. A sequence keeps the lengths of its
conversations; from these the trainer makes positions that begin at 0 and attention that ends at each conversation's
borders. Rows without supervised tokens fill up the last step, so that every step of every epoch has the same number of
sequences, on any number of devices.

`prepare` writes the data to a folder of this machine. All processes read it from there; none holds all of it in memory.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from pipelines.formats.read import read
from pipelines.records.ledger import Ledger
from pipelines.training.reporting import Aborted, Reporter
from services.errors import ConfigurationError, TemplateError
from services.jobs.recipe import InputOptions
from services.jobs.training import TrainingConfig
from services.machine.files import sha256_of
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message

IGNORED = -100  # the label of a token that is read and not learnt
NUM_SHOWN = 3  # conversations whose learnt text is printed
_SHOWN_CHARS = 300


@dataclass
class Counts:
    """Counts over the conversations that were read."""

    examples: int = 0
    evaluated: int = 0  # of them, kept for evaluation
    tokens: int = 0
    supervised_tokens: int = 0
    truncated: int = 0
    unsupervised: int = 0
    shown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    """`folder` holds the data sets `train` and, if anything is evaluated, `eval`."""

    folder: Path
    counts: Counts
    num_sequences: int  # of one epoch, a multiple of those of a step
    data: dict[str, str]  # sha256 of each file

    def steps(self, config: TrainingConfig, sequences_per_step: int) -> int:
        return config.max_steps or math.ceil(config.epochs * (self.num_sequences // sequences_per_step))


def prepare(
    paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, sequences_per_step: int, folder: Path
) -> Prepared:
    """Read, tokenize, split and pack, into an existing folder.

    Raises ConfigurationError for data that is none, Aborted for data that would do harm.
    """
    counts = Counts()
    rows = _written(_rows(paths, tokenizer, config, counts), folder / "rows.arrow")
    _check(counts, config)
    train = _arranged(_part(rows, evaluated=False), config)
    train = _filled(train, sequences_per_step, tokenizer.stop_token_ids[0])
    train.save_to_disk(str(folder / "train"))
    if counts.evaluated:
        _arranged(_part(rows, evaluated=True), config).save_to_disk(str(folder / "eval"))
    return Prepared(folder, counts, len(train), {str(path): sha256_of(path) for path in paths})


def describe(counts: Counts, config: TrainingConfig, report: Reporter) -> None:
    """Lines for people: what is learnt, with examples, and what is not."""
    report.say(
        f"{counts.examples:,} conversations, {counts.tokens:,} tokens, "
        f"of which {counts.supervised_tokens:,} are learnt; "
        f"{counts.evaluated:,} conversations are only evaluated."
    )
    if counts.truncated:
        report.say(f"{counts.truncated:,} conversations are longer than seq_len={config.seq_len} and were cut there.")
    if counts.unsupervised:
        report.say(f"{counts.unsupervised:,} conversations have no token to learn and were dropped.")
    for shown in counts.shown:
        report.say(f"What is learnt of {shown}")


def read_conversations(paths: Sequence[Path]) -> Iterator[tuple[str, str, list[Message]]]:
    """(where it stands, its id, its turns) of every record, in any shape and format that cleaning reads and writes.

    Raises ConfigurationError for a record that is none.
    """
    for path in paths:
        for found in read(str(path), InputOptions(), Ledger(), _refuse):
            where = f"{path.name}:{found.source.line}"
            messages = [Message(cast(Any, turn.role), turn.text) for turn in found.turns]  # the template judges roles
            yield where, found.origin or found.id, messages


def _refuse(line: dict[str, Any]) -> None:
    name, number = line["source"]
    raise ConfigurationError(
        f"{Path(name).name}:{number}: {line['detail']}; train on what `chatserver clean` wrote, which leaves such out"
    )


def is_evaluated(conversation_id: str, fraction: float) -> bool:
    """By a hash of its id: the same conversation falls on the same side, whatever else the data holds."""
    digest = hashlib.sha256(conversation_id.encode()).digest()
    return int.from_bytes(digest[:8]) < fraction * 2**64


def _rows(
    paths: Sequence[Path], tokenizer: ChatTokenizer, config: TrainingConfig, counts: Counts
) -> Iterator[dict[str, Any]]:
    for where, identity, messages in read_conversations(paths):
        try:
            found = tokenizer.supervised(messages)
        except (TemplateError, ConfigurationError) as error:
            raise Aborted(f"{where}: {error}") from None
        counts.examples += 1
        counts.truncated += len(found.ids) > config.seq_len
        ids, mask = found.ids[: config.seq_len], found.mask[: config.seq_len]
        if not any(mask[1:]):  # the first token follows nothing that could tell it
            counts.unsupervised += 1
            continue
        evaluated = is_evaluated(identity, config.eval_fraction)
        counts.evaluated += evaluated
        counts.tokens += len(ids)
        counts.supervised_tokens += sum(mask)
        if len(counts.shown) < NUM_SHOWN:
            counts.shown.append(f"{where}: {_learnt_text(tokenizer, ids, mask)}")
        labels = [token if learnt else IGNORED for token, learnt in zip(ids, mask, strict=True)]
        yield {"input_ids": ids, "labels": labels, "evaluated": evaluated}


def _learnt_text(tokenizer: ChatTokenizer, ids: list[int], mask: list[int]) -> str:
    """The decoded stretches that are learnt, each in quotes."""
    stretches = groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    texts = [
        tokenizer.decoder().decode([token for token, _ in pairs], skip_special_tokens=False)
        for learnt, pairs in stretches
        if learnt
    ]
    return " … ".join(repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…") for text in texts)


def _check(counts: Counts, config: TrainingConfig) -> None:
    if not counts.examples:
        raise ConfigurationError("the data holds no conversation; give the JSONL files that cleaning wrote")
    fraction = counts.unsupervised / counts.examples
    if fraction > config.max_unsupervised:
        raise Aborted(
            f"{counts.unsupervised:,} of {counts.examples:,} conversations ({fraction:.1%}) have no token to learn "
            f"within seq_len={config.seq_len}; max_unsupervised={config.max_unsupervised} allows fewer: "
            "look for conversations without an answer, or raise seq_len"
        )
    if counts.examples - counts.unsupervised == counts.evaluated:
        raise ConfigurationError(f"eval_fraction={config.eval_fraction} leaves nothing to train on; lower it")


def _written(rows: Iterator[dict[str, Any]], path: Path) -> Any:
    from datasets import Dataset, Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    tokens = List(Value("int32"))
    features = Features({"input_ids": tokens, "labels": tokens, "evaluated": Value("bool")})
    with ArrowWriter(features=features, path=str(path)) as writer:
        for row in rows:
            writer.write(row)
        num, _ = writer.finalize()
    return Dataset.from_file(str(path)) if num else None


def _part(rows: Any, *, evaluated: bool) -> Any:
    kept = rows.filter(lambda flags: [flag == evaluated for flag in flags], input_columns="evaluated", batched=True)
    return kept.select_columns(["input_ids", "labels"])


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
