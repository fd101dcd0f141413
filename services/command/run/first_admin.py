"""The link for the first administrator, which `chatserver up` prints while people sign in and there is none."""

from services.accounts.accounts import Accounts
from services.database.database import Database
from services.errors import ChatServerError
from services.settings import Settings


def invitation_line(settings: Settings, address: str) -> str:
    """The line with the link, or why there is none; empty when there is an administrator. The web app has migrated the
    database."""
    database = Database.of(settings)
    try:
        secret = Accounts(database).invitations.invite_first_admin()
    except ChatServerError as error:
        return f"no link for the first administrator: {error}"
    finally:
        database.close()
    return f"no administrator yet; make yourself one: {address}/sign-up/{secret}" if secret else ""
