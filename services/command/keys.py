"""`chatserver keys`: makes, lists and revokes the keys of the API under `/v1`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.accounts.api_keys import ApiKeys

application = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The key's name, such as that of the program that uses it.")]


@application.command()
def create(
    name: Name, user: Annotated[str, typer.Option(help="Whose requests these are; by default the key's name.")] = ""
) -> None:
    """Make a key and print it. It is shown this once; only a digest is kept."""
    with _api_keys() as keys:
        print(keys.create(name, user or f"key-{name}"))


@application.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the keys: names, users, last characters, last use."""
    from dataclasses import asdict
    from datetime import datetime

    from services.command.tables import print_json, print_table

    with _api_keys() as keys:
        rows = [asdict(key) for key in keys.list()]
    if as_json:
        print_json(rows)
    elif rows:
        times = [datetime.fromtimestamp(row["used"]).strftime("%Y-%m-%d %H:%M") if row["used"] else "" for row in rows]
        print_table([{**row, "used": time} for row, time in zip(rows, times, strict=True)], "name user ending used")
    else:
        print("no keys; `chatserver keys create NAME` makes one")


@application.command()
def revoke(
    name: Name, user: Annotated[str, typer.Option(help="Whose key, where several users have one of this name.")] = ""
) -> None:
    """Serve no request with this key any more. Answers that run go on."""
    with _api_keys() as keys:
        print(f"{keys.revoke(name, user).name} revoked")


@contextmanager
def _api_keys() -> "Iterator[ApiKeys]":
    from services.accounts.api_keys import ApiKeys
    from services.command.access import command_settings
    from services.connection.connect import connect, translated
    from services.wire.keys import Keys

    settings = command_settings()
    with connect(settings.redis_url, role="command") as redis, translated():
        yield ApiKeys(redis, Keys(settings.namespace))
