"""The accounts of one installation: users, their groups, sessions, invitations. `create_app` and commands make them."""

from services.accounts.groups import Groups
from services.accounts.invitations import Invitations
from services.accounts.passwords import Passwords
from services.accounts.sessions import Sessions
from services.accounts.users import Users
from services.database.database import Database


class Accounts:
    """What every part of the web app and each command of accounts needs."""

    def __init__(self, database: Database, passwords: Passwords | None = None) -> None:
        self.users = Users(database, passwords)
        self.groups = Groups(database)
        self.sessions = Sessions(database)
        self.invitations = Invitations(database, self.users)
