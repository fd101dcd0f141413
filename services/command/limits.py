"""`chatserver limits`: what users may use; lists, sets and unsets the limits of single users."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.chat.quotas import Quotas

application = typer.Typer(
    help="Limits of users: list, set, unset. Defaults: CHATSERVER_USER_TOKENS_PER_DAY, CHATSERVER_USER_IN_FLIGHT.",
    no_args_is_help=True,
)
User = Annotated[str, typer.Argument(help="The user's name, such as that of a key: `chatserver keys list`.")]
COLUMNS = "user tokens_used tokens_per_day requests_in_flight most_in_flight weight resets_at"


@application.command("list")
def list_limits(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the users with limits of their own, and what they have used today (UTC)."""
    from services.command.tables import print_json, print_table

    with _quotas() as quotas:
        rows = [{"user": user, **quotas.usage(user).row()} for user in quotas.all()]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, COLUMNS)
    else:
        print("no user has limits of its own; `chatserver limits set USER --tokens-per-day N` sets one")


@application.command("set")
def set_limits(
    user: User,
    tokens_per_day: Annotated[int | None, typer.Option(help="Tokens of prompts and answers; 0: any number.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Requests at once, over all models; 0: any number.")] = None,
    weight: Annotated[
        float | None, typer.Option(help="Share of the tokens while others wait; 1 is everybody's.")
    ] = None,
) -> None:
    """Set some of a user's limits; the others stay. It holds within five seconds."""
    from services.errors import InvalidRequest

    if tokens_per_day is None and in_flight is None and weight is None:
        raise InvalidRequest("name a limit: --tokens-per-day, --in-flight or --weight")
    with _quotas() as quotas:
        limits = quotas.set(user, tokens_per_day=tokens_per_day, in_flight=in_flight, weight=weight)
    tokens, requests = (number or "any number of" for number in (limits.tokens_per_day, limits.in_flight))
    print(f"{user}: {tokens} tokens a day, {requests} requests in flight, weight {limits.weight:g}")


@application.command()
def unset(user: User) -> None:
    """Let the defaults apply to a user again."""
    with _quotas() as quotas:
        had = quotas.unset(user)
    print(f"{user} has the defaults" + ("" if had else " already"))


@contextmanager
def _quotas() -> "Iterator[Quotas]":
    from services.chat.quotas import Quotas
    from services.command.access import command_settings
    from services.connection.connect import connect, translated

    settings = command_settings()
    with connect(settings.redis_url, role="command") as redis, translated():
        yield Quotas.from_settings(redis, settings)
