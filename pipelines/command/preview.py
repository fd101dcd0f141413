"""What of a fine-tuning its data become: `chatserver train preview`, and the first part of `--dry-run`.

python -m pipelines.command.preview [--examples 3] SPEC     # a job's spec as JSON

`page_preview.py` reads the same for the page.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from pipelines.training.data import Counts, Stretch
from pipelines.training.fitting import check_fits, limits_of
from pipelines.training.objectives import DataSource, Objective, objective_of
from pipelines.training.reporting import Aborted
from services.command import run_command
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig, plan_batch
from services.jobs.training_jobs import spec_config
from services.models.catalogue import resolve
from services.tokens.tokenization import load_tokenizer

MOST_CHARS = 2_000  # of a conversation that is shown
_LEARNT, _READ, _PLAIN = "\x1b[32m", "\x1b[2m", "\x1b[0m"  # green, dim
_CONTROLS = {code: "·" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@application.command()
def preview(
    spec: Annotated[str, typer.Argument(help="The spec of a job, as JSON.")],
    examples: Annotated[int, typer.Option(min=0, help="How many conversations to show.")] = 3,
) -> None:
    """Read the data and show what would be learnt; write nothing."""
    found = orjson.loads(spec)
    read = read_data(found, [Path(name) for name in found["data"]], examples)
    for line in read.lines():
        print(line)
    for where, stretches in read.shown:
        print(f"\n{where}\n{_coloured(shortened(stretches), colours=sys.stdout.isatty())}")
    read.check()


@dataclass(frozen=True)
class ReadData:
    """What the data of a fine-tuning become. `share`: the part of the data that was read."""

    template_reason: str
    objective: Objective
    config: TrainingConfig
    num_devices: int
    counts: Counts
    shown: Sequence[tuple[str, list[Stretch]]]
    share: float = 1.0

    def lines(self) -> list[str]:
        """What people read of it."""
        packs = not self.objective.unpacked
        estimate = _estimate(self.counts, self.config, self.num_devices, 1 / self.share, packs=packs)
        return [self.template_reason, *self.objective.lines(self.counts, self.config), estimate]

    def check(self) -> None:
        """Raises ConfigurationError where the training would end."""
        try:
            self.objective.check(self.counts, self.config)
        except Aborted as error:
            raise ConfigurationError(str(error)) from None


def read_data(spec: Mapping[str, Any], paths: Sequence[Path], num_examples: int, share: float = 1.0) -> ReadData:
    """Read some files as the training of a job's spec would. Raises ConfigurationError."""
    config, source = spec_config(spec), resolve(spec["config"]["model"])
    limits = limits_of(source)
    check_fits(limits, config)
    load = partial(load_tokenizer, source, template=config.template)
    tokenizer, objective = load(), objective_of(config)
    data = DataSource(paths, tokenizer, limits.vocabulary, load)
    counts, shown = objective.inspect(data, config, num_examples)
    num_devices = spec["num_devices"] * spec["num_nodes"]
    return ReadData(tokenizer.template_reason, objective, config, num_devices, counts, shown, share)


def _estimate(counts: Counts, config: TrainingConfig, num_devices: int, times: float, *, packs: bool) -> str:
    """Packed sequences are nearly full; unpacked, each sample is one. There are `times` as many data as were read."""
    trained = max(counts.samples - counts.unsupervised - counts.unwanted - counts.evaluated, 0)
    share = trained / max(trained + counts.evaluated, 1)
    tokens = counts.tokens * share * times
    rows = math.ceil(tokens / config.seq_len if config.packing and packs else trained * times)
    batch = plan_batch(config, num_devices)
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(rows / batch.sequences))
    in_all = int(tokens * config.epochs)
    return f"About {steps:,} steps of {batch.tokens:,} tokens; {in_all:,} tokens are trained on in all epochs."


def shortened(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The first `MOST_CHARS` characters, without those that would move a cursor."""
    left, parts = MOST_CHARS, []
    for stretch in stretches:
        if text := stretch.text[:left].translate(_CONTROLS):
            left -= len(text)
            parts.append(Stretch(text, stretch.learnt))
    return parts if left > 0 else [*parts, Stretch("…", False)]


def _coloured(stretches: Sequence[Stretch], *, colours: bool) -> str:
    """What is learnt in green, or in brackets where there are no colours."""
    if colours:
        return "".join(f"{_LEARNT if each.learnt else _READ}{each.text}{_PLAIN}" for each in stretches)
    return "".join(f"⟦{each.text}⟧" if each.learnt else each.text for each in stretches)


if __name__ == "__main__":
    run_command(partial(application, prog_name="chatserver train preview"))
