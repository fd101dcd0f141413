"""`chatserver clean run`: a whole cleaning in this process, with a progress bar."""

import os
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from pipelines.cleaning.units import Unit
from services.jobs.recipe import read_recipe
from services.jobs.record_counts import totals

MAX_REASONS = 5  # that the terminal shows


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe: YAML, such as infra/recipes/vicuna.yaml.")],
    inputs: Annotated[list[str], typer.Option("--in", help="A file or URL to read; repeat it for more.")],
    out: Annotated[str, typer.Option("--out", help="The folder or s3:// URL of the result; half-done work continues.")],
    processes: Annotated[int, typer.Option(min=1, max=256, help="Shards that are cleaned at once.")] = os.cpu_count()
    or 1,
) -> None:
    """Clean conversations: data.jsonl, rejects.jsonl, report.json and report.html in a folder.

    The exit status is 1 when no record was written, or an input is cut or damaged.
    """
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
    raise typer.Exit(_summary(orjson.loads(cleaning.folder.result("report.json")), cleaning.folder.out, console))


def _summary(report: dict[str, Any], out: str, console: Console) -> int:
    """Says what became of the records. The exit status: 1 if there is none, or an input ended before its end."""
    sums, ended_early = report["sums"], _num_ended_early(report)
    said = totals(sums["records_read"], sums["records_rejected"], sums["records_written"])
    console.print(f"{said}; report: {out}/report.html", highlight=False)
    for number, reason in _commonest_reasons(report):
        console.print(f"  {number:,} × {reason}", highlight=False)
    if not sums["records_written"]:
        console.print(f"no record was written: {out}/rejects.jsonl says why", style="red", highlight=False)
    if ended_early:
        console.print("an input is cut or damaged: what comes after that place was not read", style="red")
    return int(not sums["records_written"] or ended_early > 0)


def _commonest_reasons(report: dict[str, Any]) -> list[tuple[int, str]]:
    reasons = [
        (number, f"{step['step']}/{why}") for step in report["steps"] for why, number in step["rejected"].items()
    ]
    return sorted(reasons, key=lambda reason: (-reason[0], reason[1]))[:MAX_REASONS]


def _num_ended_early(report: dict[str, Any]) -> int:
    rejected = report["steps"][0]["rejected"]
    return int(rejected.get("truncated", 0) + rejected.get("damaged", 0))
