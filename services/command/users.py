"""`chatserver users`: the accounts of the people who sign in. It needs the database, and no running web app."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.accounts.accounts import Accounts

application = typer.Typer(help="People who sign in: create, list, disable, invite.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The name with which the user signs in.")]
Admin = Annotated[bool, typer.Option("--admin", help="With the role of an administrator.")]
Group = Annotated[str, typer.Option(help="The group whose limits are the user's.")]


@application.command()
def create(name: Name, admin: Admin = False, group: Group = "") -> None:
    """Make an account. Asks for the password, or reads it from a pipe."""
    from services.accounts.users import checked_name

    checked_name(name)
    with kept_accounts() as accounts:
        user = accounts.users.create(name, _asked_password(), role="admin" if admin else "user", group=group)
        print(f"{user.name} can sign in{' as an administrator' if user.is_admin else ''}")


@application.command("list")
def list_users(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the accounts: names, roles, groups, who is disabled."""
    from dataclasses import asdict

    from services.command.tables import print_json, print_table

    with kept_accounts() as accounts:
        rows = [asdict(user) for user in accounts.users.list()]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(
            [{**row, "disabled": "yes" if row["disabled"] else ""} for row in rows], "name role group disabled id"
        )
    else:
        print("no users; `chatserver users create NAME --admin` makes the first one")


@application.command()
def password(name: Name) -> None:
    """Give a user another password. Asks for it, or reads it from a pipe. The user is signed out everywhere."""
    with kept_accounts() as accounts:
        user = accounts.users.named(name)
        accounts.users.reset_password(user.id, _asked_password())
        print(f"{user.name} has a new password, and is signed out everywhere")


@application.command()
def role(name: Name, new: Annotated[str, typer.Argument(help="user or admin.")]) -> None:
    """Change what a user may do."""
    with kept_accounts() as accounts:
        user = accounts.users.change(accounts.users.named(name).id, role=new)
        print(f"{user.name} is {'an administrator' if user.is_admin else 'a user'} now")


@application.command()
def disable(name: Name) -> None:
    """Sign a user out, and in no more. What the user has stays; the user's API keys do not work."""
    with kept_accounts() as accounts:
        print(f"{accounts.users.change(accounts.users.named(name).id, disabled=True).name} is disabled")


@application.command()
def enable(name: Name) -> None:
    """Let a disabled user sign in again."""
    with kept_accounts() as accounts:
        print(f"{accounts.users.change(accounts.users.named(name).id, disabled=False).name} can sign in again")


@application.command()
def invite(admin: Admin = False, group: Group = "") -> None:
    """Make a link by which one person can sign up within seven days, and print the end of it."""
    from services.command.access import user_id

    with kept_accounts() as accounts:
        secret = accounts.invitations.invite(user_id(), role="admin" if admin else "user", group=group)
    print(f"/sign-up/{secret}")


@contextmanager
def kept_accounts() -> "Iterator[Accounts]":
    """The accounts of this installation; the database has the schema of this build then."""
    from services.accounts.accounts import Accounts
    from services.command.access import command_settings
    from services.database.database import Database
    from services.database.schema import migrate

    database = Database.of(command_settings())
    migrate(database)
    yield Accounts(database)
    database.close()


def _asked_password() -> str:
    """What is typed twice and not shown, or the line in a pipe."""
    import sys

    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")
