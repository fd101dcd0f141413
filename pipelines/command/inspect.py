"""`chatserver clean inspect`: read a dataset turn by turn, or a run before and after."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pipelines.command.records import before_and_after, records_of, rejects_of
from pipelines.records.conversation import Conversation, FullTurn, Turn, from_record

COLOURS = {"user": "green", "assistant": "blue", "system": "magenta"}


def inspect(
    what: Annotated[str, typer.Argument(help="A dataset file or URL, or the folder of a run.")],
    begin: Annotated[int, typer.Option(min=0, help="Skip so many records.")] = 0,
    id: Annotated[str, typer.Option("--id", help="Only the record with this id, or pieces of it.")] = "",
    rejects: Annotated[bool, typer.Option("--rejects", help="What a run rejected, with the reason.")] = False,
    before: Annotated[bool, typer.Option(help="Of a run: the input beside the output.")] = True,
) -> None:
    """Page through records: Enter for the next one, q to leave. In a pipe, all of them."""
    console = Console(highlight=False)
    shown = _rejects(Path(what), id) if rejects else _records(what, id, before)
    for number, view in enumerate(islice(shown, begin, None), start=begin):
        console.rule(f"{number}")
        console.print(view)
        if sys.stdin.isatty() and sys.stdout.isatty() and console.input("[dim]Enter: next, q: quit[/dim] ") == "q":
            return


def _records(what: str, id: str, before: bool) -> Iterator[RenderableType]:
    if Path(what).is_dir() and before:
        pairs = before_and_after(Path(what))
    else:
        pairs = ((None, record) for record in records_of(what))
    for old, new in pairs:
        if id in ("", new.id, new.origin_id):
            yield _beside(old, new) if old is not None else _conversation(new)


def _rejects(folder: Path, id: str) -> Iterator[RenderableType]:
    for line in rejects_of(folder):
        record = line.get("record")
        if id and (record is None or id not in (record["id"], record.get("origin"))):
            continue
        turns = f", turns {', '.join(map(str, line['turns']))}" if "turns" in line else ""
        turns += " (shortened)" if line.get("shortened") else ""
        title = Text(f"{line['step']}: {line['reason']} {line['detail']}{turns}", "red")
        yield Group(title, _conversation(from_record(record)) if record else Text(_raw(line)))


def _raw(line: dict[str, Any]) -> str:
    file, number = line["source"]
    return f"{file}:{number}\n{line['raw']}"


def _conversation(conversation: Conversation) -> RenderableType:
    head = Text(f"{conversation.id}  {conversation.source.file}:{conversation.source.line}", "dim")
    turns = [_turn(turn.role, _shown(turn)) for turn in conversation.turns]
    if conversation.rejected is not None:
        turns.append(_turn("rejected", _shown(conversation.rejected)))
    return Group(head, *turns)


def _shown(turn: Turn) -> str:
    """The text, and what a turn holds beside it."""
    if not isinstance(turn, FullTurn):
        return turn.text
    calls = [f"calls {call.name}({json.dumps(call.arguments, ensure_ascii=False)})" for call in turn.calls]
    thought = [f"thinks: {turn.reasoning}"] if turn.reasoning else []
    label = [] if turn.label is None else [f"label: {str(turn.label).lower()}"]
    return "\n".join([*thought, *([turn.text] if turn.text else []), *calls, *label])


def _turn(role: str, text: str) -> Panel:
    return Panel(Text(text), title=role, title_align="left", border_style=COLOURS.get(role, "yellow"))


def _beside(old: Conversation, new: Conversation) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(_conversation(old), _conversation(new))
    return table
