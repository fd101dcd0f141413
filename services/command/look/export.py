"""`chatserver export`: what people thought of answers, as training data."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from services.errors import ConfigurationError


class Rating(StrEnum):
    up = "up"
    down = "down"
    any = "any"


def export(
    file: Annotated[Path, typer.Argument(help="The file to write: JSON lines.")],
    rated: Annotated[
        Rating | None, typer.Option(help="Answers rated up, down or any of the two, each with its conversation.")
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Pairs of answers, from votes, corrections and versions, for DPO.")
    ] = False,
) -> None:
    """Write judged answers as training data: `--rated up` for `chatserver clean`, `--pairs` for `train` with DPO."""
    from services.command.look.arena import reading
    from services.judgements import records
    from services.machine.files import write

    if (rated is None) == (not pairs):
        raise ConfigurationError("say what to export: --rated up, --rated down, --rated any, or --pairs")
    with reading() as session:
        found = records.pairs(session) if rated is None else records.rated(session, rated.value)
    write(file.absolute(), b"".join(found.lines()))
    print(f"{len(found.records)} {'pairs' if pairs else 'rated answers'} in {file}")
    if found.left_out:
        print(found.said())
