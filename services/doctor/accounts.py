"""Checks the accounts: must people sign in, is there an administrator, and does a public page have neither?"""

from collections.abc import Iterator
from importlib.util import find_spec

from services.doctor.findings import Finding, note, ok, warning, wrong
from services.errors import ChatServerError, ConfigurationError
from services.settings import Settings, variable_of

CREATE = "`chatserver users create NAME --admin` makes one"


def check_accounts(settings: Settings) -> Iterator[Finding]:
    if find_spec("sqlalchemy") is None:
        yield note("not installed here: SQLAlchemy; the web app's doctor looks at the accounts")
        return
    from services.accounts.exposure import check_exposure, public_address

    try:
        check_exposure(settings)
    except ConfigurationError as error:
        yield wrong(error.message, error.remedy)
        return
    address = public_address(settings)
    if settings.accounts == "on":
        yield from _people(settings)
    elif address:
        yield warning(
            f"everybody who reaches {address} may use this server: nobody has to sign in",
            f"set {variable_of('accounts')}=on, unless that is meant",
        )
    else:
        yield ok("nobody has to sign in, and only this machine reaches the page")


def _people(settings: Settings) -> Iterator[Finding]:
    from services.accounts.accounts import Accounts
    from services.database.database import FILE, Database

    if not settings.database_url and not (settings.state_dir / FILE).exists():
        yield note("people must sign in, and there is no account yet", CREATE)
        return
    try:
        users = Accounts(Database.of(settings)).users.list()
    except ChatServerError as error:  # the check of the database says why, and what to do
        yield note(f"people must sign in; the doctor cannot see their accounts: {error.message}")
        return
    admins = [user for user in users if user.is_admin and not user.disabled]
    told = f"people must sign in: {len(users)} account{'' if len(users) == 1 else 's'}, {len(admins)} of them "
    told += "administrator" if len(admins) == 1 else "administrators"
    yield ok(told) if admins else warning(f"{told}, so nobody may invite people or run jobs", CREATE)
