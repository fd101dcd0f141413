"""`chatserver clean stats`: statistics of a dataset."""

from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from pipelines.command.records import records_of
from pipelines.records.statistics import statistics_of

BAR = 40  # characters of the longest bar


def stats(
    what: Annotated[list[str], typer.Argument(help="Dataset files or URLs, or folders of runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Records, turns, lengths, languages and models of datasets."""
    found = statistics_of(record for name in what for record in records_of(name)).as_dict()
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    console = Console()
    numbers = ("records", "turns", "chars", "tokens")
    console.print("  ".join(f"{found[name]:,} {name}" for name in numbers if found[name] or name == "records"))
    for title, counts in _histograms(found):
        if counts:
            console.print(_table(title, counts))


def _histograms(found: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    return [
        ("turns of a record", found["turns_of_record"]),
        ("characters of a record, from", found["chars_of_record"]),
        ("characters of an answer, from", found["chars_of_turn"]["assistant"]),
        ("tokens of a record, from", found["tokens_of_record"]),
        ("language", found["languages"]),
        ("model", found["models"]),
        ("source", found["sources"]),
    ]


def _table(title: str, counts: dict[str, int]) -> Table:
    table = Table(title, "records", "", box=None, padding=(0, 2, 0, 0))
    greatest = max(counts.values())
    for name, count in counts.items():
        table.add_row(name, f"{count:,}", "█" * max(1, round(BAR * count / greatest)))
    return table
