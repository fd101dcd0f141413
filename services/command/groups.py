"""`chatserver groups`: groups of users, and what each member may use. It needs the database, and no running web app."""

from typing import Annotated

import typer

application = typer.Typer(
    help="Groups of users who sign in: list, set, remove, move. The limits of a group hold for each member.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The name of the group.")]
COLUMNS = "name members tokens_per_day in_flight weight"


@application.command("list")
def list_groups(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the groups: how many members each has, and the limits that it sets."""
    from dataclasses import asdict

    from services.command.tables import print_json, print_table
    from services.command.users import kept_accounts
    from services.wire.limits import NAMES

    with kept_accounts() as accounts:
        groups = accounts.groups.list()
    if as_json:
        print_json([asdict(group) for group in groups])
    elif groups:
        unset = dict.fromkeys(NAMES, "")
        print_table(
            [{**unset, "name": each.name, "members": each.num_members, **each.limits} for each in groups], COLUMNS
        )
    else:
        print("no groups; `chatserver groups set NAME --tokens-per-day N` makes one")


@application.command("set")
def set_group(
    name: Name,
    tokens_per_day: Annotated[int | None, typer.Option(help="Tokens of each member; 0: any number.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Requests of each member at once; 0: any number.")] = None,
    weight: Annotated[
        float | None, typer.Option(help="Each member's share of the tokens while others wait; 1 is everybody's.")
    ] = None,
) -> None:
    """Make a group, or set some of its limits; the others stay. It holds for the members within ten seconds."""
    from services.command.users import kept_accounts

    with kept_accounts() as accounts:
        group = accounts.groups.set(name, tokens_per_day=tokens_per_day, in_flight=in_flight, weight=weight)
    limits = ", ".join(f"{limit.replace('_', ' ')} {value:g}" for limit, value in group.limits.items())
    print(f"{group.name} ({group.num_members} members): {limits or 'the defaults'}")


@application.command()
def remove(name: Name) -> None:
    """Remove a group. Its members stay, and have the defaults."""
    from services.command.users import kept_accounts

    with kept_accounts() as accounts:
        print(f"{name} is removed; {accounts.groups.remove(name)} members are in no group now")


@application.command()
def move(
    user: Annotated[str, typer.Argument(help="The name with which the user signs in.")],
    name: Annotated[str, typer.Argument(help="The name of the group; left out: no group.")] = "",
) -> None:
    """Move a user to a group, and out of the one before."""
    from services.command.users import kept_accounts

    with kept_accounts() as accounts:
        moved = accounts.users.change(accounts.users.named(user).id, group=name)
    print(f"{moved.name} is in {f'the group {moved.group}' if moved.group else 'no group'}")
