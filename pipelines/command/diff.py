"""`chatserver clean diff`: compares two cleanings of the same input, by different recipes or versions."""

import difflib
import hashlib
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from pipelines.command.records import records_of, rejects_of, report_of
from pipelines.records.conversation import Conversation, dump


def diff(
    one: Annotated[Path, typer.Argument(help="The folder of a run.")],
    other: Annotated[Path, typer.Argument(help="The folder of another run.")],
    show: Annotated[int, typer.Option(min=0, help="Changed records to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Compare two runs: records gained, lost and changed, and rejects by reason."""
    found = compare(one, other, show)
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(highlight=False)
    console.print(
        f"{found['same']:,} records are the same, {len(found['changed']):,} differ, {len(found['only_one']):,} only in "
        f"{one}, {len(found['only_other']):,} only in {other}"
    )
    console.print(_reasons(found["rejects"], str(one), str(other)))
    for change in found["shown"]:
        console.rule(change["id"])
        console.print(change["diff"], markup=False)


def compare(one: Path, other: Path, show: int) -> dict[str, Any]:
    """The differences. Ids are listed; the text only of the first `show` records that differ."""
    first = {record.id: _digest(record) for record in records_of(str(one))}
    same, only_other = 0, []
    changed: dict[str, Conversation] = {}
    names: list[str] = []
    for record in records_of(str(other)):
        digest = first.pop(record.id, None)
        if digest is None:
            only_other.append(record.id)
        elif digest == _digest(record):
            same += 1
        else:
            names.append(record.id)
            if len(changed) < show:
                changed[record.id] = record
    before = {record.id: record for record in records_of(str(one)) if record.id in changed} if changed else {}
    return {
        "same": same,
        "changed": names,
        "only_one": list(first),
        "only_other": only_other,
        "rejects": {name: _rejects(folder) for name, folder in (("one", one), ("other", other))},
        "shown": [{"id": name, "diff": _unified(before[name], record)} for name, record in changed.items()],
    }


def _digest(record: Conversation) -> bytes:
    turns = dump(Conversation("", record.turns, record.source, split=record.split))
    return hashlib.blake2b(turns, digest_size=16).digest()


def _rejects(folder: Path) -> dict[str, int]:
    report_of(folder)  # says what is wrong with the folder
    counts = Counter(f"{line['step']}: {line['reason']}" for line in rejects_of(folder))
    return dict(sorted(counts.items()))


def _reasons(rejects: dict[str, dict[str, int]], one: str, other: str) -> Table:
    table = Table("rejected or cut", one, other, "difference", box=None, padding=(0, 2, 0, 0))
    for reason in sorted({**rejects["one"], **rejects["other"]}):
        counts = [rejects[name].get(reason, 0) for name in ("one", "other")]
        table.add_row(reason, *(f"{count:,}" for count in counts), f"{counts[1] - counts[0]:+,}")
    return table


def _unified(one: Conversation, other: Conversation) -> str:
    lines: list[str] = []
    for old, new in zip_longest(one.turns, other.turns):
        before = old.text.splitlines() if old else []
        after = new.text.splitlines() if new else []
        role = (new or old).role
        lines += difflib.unified_diff(before, after, role, role, lineterm="", n=1)
    return "\n".join(lines)
