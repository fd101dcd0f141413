"""`chatserver dead`: lists, runs again or drops the requests that were given up."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from services.errors import ProtocolError

if TYPE_CHECKING:
    from services.chat.dead_letters import DeadLetters

LISTED = 100

application = typer.Typer(help="Requests that were given up: list, run again, drop.")
Rid = Annotated[str, typer.Argument(help="The request's id, or `all`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@application.callback(invoke_without_command=True)
def list_newest(context: typer.Context, as_json: AsJson = False) -> None:
    """List the newest dead letters of every model, each with its reason."""
    if context.invoked_subcommand:
        return
    from services.command.tables import print_json, print_table

    with _dead_letters() as letters:
        rows = letters.rows(LISTED)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, "rid model user reason age_s")
    else:
        print("no dead letters")


@application.command()
def retry(rid: Rid) -> None:
    """Run dead letters again. Each gets a new id, which this prints; the old letter is dropped."""
    unreadable = 0
    with _dead_letters() as letters:
        for letter in letters.matching(rid):
            try:
                print(f"{letter.rid} runs again as {letters.retry(letter)}")
            except ProtocolError as error:
                unreadable += 1
                remedy = f"`chatserver dead drop {letter.rid}` forgets it"
                print(f"chatserver: {letter.rid} cannot run again: {error}; {remedy}", file=sys.stderr)
    raise typer.Exit(1 if unreadable else 0)


@application.command()
def drop(rid: Rid) -> None:
    """Drop dead letters for good."""
    with _dead_letters() as letters:
        for letter in letters.matching(rid):
            letters.drop(letter)
            print(f"{letter.rid} dropped")


@contextmanager
def _dead_letters() -> "Iterator[DeadLetters]":
    from services.chat.dead_letters import DeadLetters
    from services.chat.requests import Requests
    from services.command.access import command_settings
    from services.connection.connect import connect, translated

    settings = command_settings()
    with connect(settings.redis_url, role="command") as redis, translated():
        yield DeadLetters(redis, Requests.from_settings(redis, settings))
