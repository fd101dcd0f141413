"""The objectives of trainings: one object for each, which `objective_of` chooses by the configuration.

`train` and `chatserver train preview` ask the object how records become the trainer's data, what people read of them,
when they end a run, and which trainer of TRL learns them with which options. What a row costs in memory stands in
`services.jobs.training`, where the page and the command plan steps, too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pipelines.training.data import Counts, Prepared, Stretch, check_counts, inspect, lines_of, prepare
from pipelines.training.preferences import check_pairs, inspect_pairs, lines_of_pairs, prepare_pairs
from pipelines.training.ratings import check_ratings, inspect_ratings, lines_of_ratings, prepare_ratings
from pipelines.training.reporting import Reporter
from pipelines.training.samples import LoadTokenizer
from services.jobs.training import TrainingConfig
from services.tokens.tokenization import ChatTokenizer


@dataclass(frozen=True)
class DataSource:
    """The data files of a run, and what reads them. `vocabulary` and `load` as `data.prepare` has them."""

    paths: Sequence[Path]
    tokenizer: ChatTokenizer
    vocabulary: int
    load: LoadTokenizer


class Objective(Protocol):
    """What `train` and `preview` ask. The methods raise what `prepare` and `check_counts` of `data` raise."""

    unpacked: str  # why several records never share a sequence; empty where they may
    shown: str  # the words before an example

    def prepare(self, source: DataSource, config: TrainingConfig, sequences_per_step: int, folder: Path) -> Prepared:
        """Write the trainer's data into an existing folder."""

    def inspect(
        self, source: DataSource, config: TrainingConfig, num_examples: int
    ) -> tuple[Counts, list[tuple[str, list[Stretch]]]]:
        """Counts over the data, and its first examples in stretches."""

    def lines(self, counts: Counts, config: TrainingConfig) -> Iterator[str]:
        """What people read of the data."""

    def check(self, counts: Counts, config: TrainingConfig) -> None:
        """Raise if the data are none, or would do harm."""

    def trainer(self) -> Any:
        """The class of the trainer. Loads torch."""

    def arguments(self, config: TrainingConfig) -> Callable[..., Any]:
        """TRL's class of options, with what this objective alone needs."""


class Answers:
    """Answers of conversations, and texts, to learn."""

    unpacked = ""
    shown = "What is learnt of"
    lines = staticmethod(lines_of)
    check = staticmethod(check_counts)

    def prepare(self, source: DataSource, config: TrainingConfig, sequences_per_step: int, folder: Path) -> Prepared:
        options: dict[str, Any] = {"vocabulary": source.vocabulary, "load": source.load}
        return prepare(source.paths, source.tokenizer, config, sequences_per_step, folder, **options)

    def inspect(
        self, source: DataSource, config: TrainingConfig, num_examples: int
    ) -> tuple[Counts, list[tuple[str, list[Stretch]]]]:
        return inspect(source.paths, source.tokenizer, config, num_examples, source.load, vocabulary=source.vocabulary)

    def trainer(self) -> Any:
        from pipelines.training.trainer import Trainer

        return Trainer

    def arguments(self, config: TrainingConfig) -> Callable[..., Any]:
        from trl.trainer.sft_config import SFTConfig

        whole = {"skip_prepare_dataset": True}  # it is tokenized and packed
        return partial(SFTConfig, dataset_kwargs=whole, packing=bool(config.packing))


class Pairs:
    """Pairs of answers, of which one is to be preferred (DPO)."""

    unpacked = "a pair of answers is not packed"
    shown = "What is preferred in"
    lines = staticmethod(lines_of_pairs)
    check = staticmethod(check_pairs)

    def prepare(self, source: DataSource, config: TrainingConfig, sequences_per_step: int, folder: Path) -> Prepared:
        return prepare_pairs(source.paths, source.tokenizer, config, folder)

    def inspect(
        self, source: DataSource, config: TrainingConfig, num_examples: int
    ) -> tuple[Counts, list[tuple[str, list[Stretch]]]]:
        return inspect_pairs(source.paths, source.tokenizer, config, num_examples)

    def trainer(self) -> Any:
        from pipelines.training.trainer import PreferenceTrainer

        return PreferenceTrainer

    def arguments(self, config: TrainingConfig) -> Callable[..., Any]:
        from trl.trainer.dpo_config import DPOConfig

        return partial(DPOConfig, beta=config.dpo_beta, precompute_ref_log_probs=True)


class Ratings:
    """Single answers, each rated good or bad (KTO)."""

    unpacked = "a rated answer is not packed"
    shown = "What is rated in"
    lines = staticmethod(lines_of_ratings)
    check = staticmethod(check_ratings)

    def prepare(self, source: DataSource, config: TrainingConfig, sequences_per_step: int, folder: Path) -> Prepared:
        return prepare_ratings(source.paths, source.tokenizer, config, folder)

    def inspect(
        self, source: DataSource, config: TrainingConfig, num_examples: int
    ) -> tuple[Counts, list[tuple[str, list[Stretch]]]]:
        return inspect_ratings(source.paths, source.tokenizer, config, num_examples)

    def trainer(self) -> Any:
        from pipelines.training.trainer import RatingTrainer

        return RatingTrainer

    def arguments(self, config: TrainingConfig) -> Callable[..., Any]:
        from trl.trainer.kto_config import KTOConfig

        return partial(
            KTOConfig,
            beta=config.kto_beta,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
            precompute_ref_log_probs=True,
        )


def objective_of(config: TrainingConfig) -> Objective:
    objectives: dict[str, type[Objective]] = {"answers": Answers, "dpo": Pairs, "kto": Ratings}
    return objectives[config.objective]()


def describe(objective: Objective, counts: Counts, config: TrainingConfig, report: Reporter) -> None:
    """Lines for people: what is learnt, with examples, and what is not."""
    for line in objective.lines(counts, config):
        report.say(line)
    for shown in counts.shown:
        report.say(f"{objective.shown} {shown}")
