"""Groups of users: a name, and limits that hold for each member alone. A user is in one group at most.

The admin page and `chatserver groups` change them. A limit that a group does not set is the installation's default; a
limit of a user's own stands before the group's. What members may use is copied to Redis by the web process
(`webapp/accounts/group_limits.py`): whoever queues requests needs no database.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from services.accounts.tables import GroupRow, InvitationRow, UserRow
from services.database.calls import once_more
from services.database.database import Database
from services.errors import InvalidRequest, NotFound, shown
from services.wire.limits import NAMES, given_limits

MOST_NAME_CHARS = 64

_NUM_MEMBERS = select(UserRow.group, func.count()).group_by(UserRow.group)


@dataclass(frozen=True)
class Group:
    """`limits`: those that the group sets, by the names of `UserLimits`."""

    name: str
    limits: Mapping[str, Any]
    num_members: int


class Groups:
    """The groups of one installation."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def list(self) -> list[Group]:
        """All groups, by name."""
        with self._database.read() as session:
            num: dict[str, int] = dict(session.execute(_NUM_MEMBERS).all())
            rows = session.scalars(select(GroupRow).order_by(GroupRow.name))
            return [Group(row.name, _limits(row), num.get(row.name, 0)) for row in rows]

    def set(
        self, name: str, *, tokens_per_day: int | None = None, in_flight: int | None = None, weight: float | None = None
    ) -> Group:
        """Make a group, or change the limits that are given: None leaves one as it is. Raises InvalidRequest."""
        changes = given_limits(tokens_per_day=tokens_per_day, in_flight=in_flight, weight=weight)
        return once_more(self._set, name, changes)

    def _set(self, name: str, changes: Mapping[str, Any]) -> Group:
        with self._database.write() as session:
            row = session.get(GroupRow, name)
            if row is None:
                row = GroupRow(name=checked_group_name(name), created_ms=round(self._clock() * 1000))
                session.add(row)
            for limit, value in changes.items():
                setattr(row, limit, value)
            session.flush()
            num = session.scalar(select(func.count()).select_from(UserRow).where(UserRow.group == name)) or 0
            return Group(row.name, _limits(row), num)

    def remove(self, name: str) -> int:
        """Its members, and who is invited into it, are in no group then; how many members it had. Raises NotFound."""
        with self._database.write() as session:
            if session.get(GroupRow, name) is None:
                raise NotFound(f"no group is named {shown(name)}; `chatserver groups list` lists them")
            members = session.scalars(select(UserRow.id).where(UserRow.group == name)).all()
            for row in (UserRow, InvitationRow):
                session.execute(update(row).where(row.group == name).values(group=""))
            session.execute(delete(GroupRow).where(GroupRow.name == name))
            return len(members)

    def limits_of_members(self) -> dict[str, dict[str, Any]]:
        """User id → the limits of the user's group, for each member of a group that sets some."""
        with self._database.read() as session:
            found = session.execute(select(UserRow.id, GroupRow).join(GroupRow, GroupRow.name == UserRow.group))
            return {user: own for user, row in found if (own := _limits(row))}


def check_group(session: Session, name: str) -> None:
    """Raises InvalidRequest for a group that there is not; the empty name is no group."""
    if name and session.get(GroupRow, name) is None:
        raise InvalidRequest(
            f"no group is named {shown(name)}; make it first, on the admin page or by `chatserver groups set`",
            field="group",
        )


def checked_group_name(name: str) -> str:
    if not name or len(name) > MOST_NAME_CHARS or name != " ".join(name.split()) or not name.isprintable():
        raise InvalidRequest(
            f"group {shown(name)} is not 1-{MOST_NAME_CHARS} characters without spaces at its ends", field="name"
        )
    return name


def _limits(row: GroupRow) -> dict[str, Any]:
    return {name: value for name in NAMES if (value := getattr(row, name)) is not None}
