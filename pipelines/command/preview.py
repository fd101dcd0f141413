"""What of a fine-tuning its data become: `chatserver train preview`, and the first part of `--dry-run`.

python -m pipelines.command.preview [--examples 3] SPEC     # a job's spec as JSON
"""

import math
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

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
    config, source = spec_config(found), resolve(found["config"]["model"])
    limits = limits_of(source)
    check_fits(limits, config)
    load = partial(load_tokenizer, source, template=config.template)
    tokenizer = load()
    print(tokenizer.template_reason)
    data = DataSource([Path(name) for name in found["data"]], tokenizer, limits.vocabulary, load)
    objective = objective_of(config)
    counts, shown = objective.inspect(data, config, examples)
    estimate = _estimate(counts, config, found["num_devices"] * found["num_nodes"], packs=not objective.unpacked)
    for line in (*objective.lines(counts, config), *estimate):
        print(line)
    for where, stretches in shown:
        print(f"\n{where}\n{_coloured(stretches, colours=sys.stdout.isatty())}")
    _check(objective, counts, config)


def _check(objective: Objective, counts: Counts, config: TrainingConfig) -> None:
    """Where the training would end, the preview ends with an error too."""
    try:
        objective.check(counts, config)
    except Aborted as error:
        raise ConfigurationError(str(error)) from None


def _estimate(counts: Counts, config: TrainingConfig, num_devices: int, *, packs: bool) -> list[str]:
    """Packed sequences are nearly full; unpacked, each sample is one."""
    trained = max(counts.samples - counts.unsupervised - counts.unwanted - counts.evaluated, 0)
    share = trained / max(trained + counts.evaluated, 1)
    rows = math.ceil(counts.tokens * share / config.seq_len) if config.packing and packs else trained
    batch = plan_batch(config, num_devices)
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(rows / batch.sequences))
    tokens = int(counts.tokens * share * config.epochs)
    return [f"About {steps:,} steps of {batch.tokens:,} tokens; {tokens:,} tokens are trained on in all epochs."]


def _coloured(stretches: list[Stretch], *, colours: bool) -> str:
    """What is learnt in green, or in brackets where there are no colours."""
    left, parts = MOST_CHARS, []
    for stretch in stretches:
        text = stretch.text[:left].translate(_CONTROLS)
        left -= len(text)
        if colours:
            parts.append(f"{_LEARNT if stretch.learnt else _READ}{text}{_PLAIN}")
        else:
            parts.append(f"⟦{text}⟧" if stretch.learnt and text else text)
    return "".join(parts) + ("…" if left <= 0 else "")


if __name__ == "__main__":
    run_command(partial(application, prog_name="chatserver train preview"))
