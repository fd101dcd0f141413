"""`chatserver clean run`: a whole cleaning in this process, with a progress bar."""

import os
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from pipelines.cleaning.units import Unit
from services.jobs.recipe import read_recipe
from services.jobs.record_counts import totals


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe: YAML, such as infra/recipes/vicuna.yaml.")],
    inputs: Annotated[list[str], typer.Option("--in", help="A file or URL to read; repeat it for more.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the result; half-done work there is continued.")],
    processes: Annotated[int, typer.Option(min=1, max=256, help="Shards that are cleaned at once.")] = os.cpu_count()
    or 1,
) -> None:
    """Clean conversations: data.jsonl, rejects.jsonl, report.json and report.html in a folder."""
    cleaning = Cleaning(out, read_recipe(recipe), inputs)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("reading", total=None)

        def tell(unit: Unit, progress: dict[str, object]) -> None:
            total = cleaning.num_units() or None
            if unit.kind == "read":
                bars.update(bar, description=f"reading: {progress['records']:,} records", total=total)
            if cleaning.done(unit):
                bars.update(bar, description=unit.kind, total=total, advance=1)

        local.run(cleaning, processes, tell)
    _summary(out, console)


def _summary(out: Path, console: Console) -> None:
    sums = orjson.loads((out / "report.json").read_bytes())["sums"]
    console.print(
        f"{totals(sums['records_read'], sums['records_rejected'], sums['records_written'])}; "
        f"report: {out / 'report.html'}"
    )
