"""`chatserver arena`: the leaderboard from people's votes, and the votes as a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from services.arena.leaderboard import Leaderboard, Standing

application = typer.Typer(help="The arena: its leaderboard, and its votes as a file.", no_args_is_help=True)


@application.command()
def leaderboard(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the models by Bradley-Terry score, with 95 % intervals from resampled votes."""
    from services.arena import leaderboard as scores
    from services.arena.votes import games
    from services.command.tables import print_json, print_table

    with reading() as session:
        board = scores.leaderboard(games(session))
    if as_json:
        print_json(board.as_dict())
    elif board.standings:
        print_table([_row(each) for each in board.standings], "rank model score from to votes won lost tied note")
        for line in _said(board):
            print(line)
    else:
        print("nobody has voted yet; the page /arena asks two models one question")


def _row(standing: "Standing") -> dict[str, Any]:
    return {
        "rank": standing.rank,
        "model": standing.name,
        "score": round(standing.score),
        "from": "open" if standing.low is None else round(standing.low),
        "to": "open" if standing.high is None else round(standing.high),
        "votes": standing.votes,
        "won": standing.wins,
        "lost": standing.losses,
        "tied": standing.ties + standing.both_bad,
        "note": "few votes" if standing.few_votes else "",
    }


def _said(board: "Leaderboard") -> Iterator[str]:
    yield f"{board.votes} votes; a tie counts as half a win, and so do two bad answers"
    if board.groups > 1:
        yield f"{board.groups} groups never met, so nothing tells which of them is better"
    if board.unranked:
        yield f"the {len(board.standings)} contestants with the most votes; {board.unranked} more have no row"


@application.command()
def export(
    file: Annotated[Path, typer.Argument(help="The file to write: JSON lines.")],
) -> None:
    """Write each vote with its question, both answers, models and settings; nothing of who voted."""
    import orjson

    from services.arena.votes import lines
    from services.machine.files import write

    with reading() as session:
        found = [orjson.dumps(line) + b"\n" for line in lines(session)]
    write(file.absolute(), b"".join(found))
    print(f"{len(found)} votes in {file}")


@contextmanager
def reading() -> "Iterator[Session]":
    """A session of this installation's database, at the schema of this build."""
    from services.command.access import command_settings
    from services.database.database import Database
    from services.database.schema import migrate

    database = Database.of(command_settings())
    migrate(database)
    try:
        with database.read() as session:
            yield session
    finally:
        database.close()
