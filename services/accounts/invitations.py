"""Invitations: links by which one person each may make an account. Kept as digests."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from services.accounts.groups import check_group
from services.accounts.sessions import digest_of, handle_of
from services.accounts.tables import GroupRow, InvitationRow
from services.accounts.users import User, Users, checked_role, insert, num_admins
from services.database.database import Database
from services.errors import Gone, NotFound, shown

LIFETIME_S = 7 * 86_400
FIRST_ADMIN = "the first start"  # who invites the first administrator


@dataclass(frozen=True)
class Invitation:
    """An open invitation. `handle` names it and opens nothing."""

    handle: str
    role: str
    group: str
    made_by: str
    created_ms: int
    expires_ms: int

    @classmethod
    def of(cls, row: InvitationRow) -> "Invitation":
        return cls(handle_of(row.digest), row.role, row.group, row.made_by, row.created_ms, row.expires_ms)


class Invitations:
    """The invitations of one installation."""

    def __init__(self, database: Database, users: Users, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._users = users
        self._clock = clock

    def invite(self, made_by: str, *, role: str = "user", group: str = "", lifetime_s: int = LIFETIME_S) -> str:
        """A new invitation; returns its secret, the end of the link `/sign-up/SECRET`. Raises InvalidRequest."""
        secret, now_ms = secrets.token_urlsafe(24), self._now_ms()
        with self._database.write() as session:
            check_group(session, group)
            session.add(
                InvitationRow(
                    digest=digest_of(secret),
                    role=checked_role(role),
                    group=group,
                    made_by=made_by,
                    created_ms=now_ms,
                    expires_ms=now_ms + lifetime_s * 1000,
                )
            )
        return secret

    def invite_first_admin(self) -> str:
        """The same for the first administrator; the invitations of earlier starts end. Empty when there is an
        administrator."""
        if self._users.has_admin():
            return ""
        with self._database.write() as session:
            session.execute(delete(InvitationRow).where(InvitationRow.made_by == FIRST_ADMIN, _unused()))
        return self.invite(FIRST_ADMIN, role="admin")

    def open(self) -> list[Invitation]:
        """Those that nobody has used, the newest first."""
        with self._database.read() as session:
            rows = session.scalars(
                select(InvitationRow)
                .where(_unused(), InvitationRow.expires_ms > self._now_ms())
                .order_by(InvitationRow.created_ms.desc(), InvitationRow.digest)
            )
            return [Invitation.of(row) for row in rows if not _is_late(session, row.made_by)]

    def get(self, secret: str) -> Invitation:
        """The open invitation of a link. Raises Gone."""
        with self._database.read() as session:
            row = session.get(InvitationRow, digest_of(secret))
            if row is None or row.used_ms is not None or row.expires_ms <= self._now_ms():
                raise _over()
            if _is_late(session, row.made_by):
                raise _over()
            return Invitation.of(row)

    def accept(self, secret: str, name: str, password: str, display_name: str = "") -> User:
        """Make the account that the link promises, once; in no group if the link's is gone. Raises Gone,
        InvalidRequest, Conflict."""
        invitation = self.get(secret)
        made = self._users.made(name, password, role=invitation.role, group=invitation.group, display_name=display_name)
        now_ms = self._now_ms()
        with self._database.write() as session:
            if invitation.made_by == FIRST_ADMIN:
                _lock_first(session)
            if _is_late(session, invitation.made_by):
                raise _over()
            if session.get(GroupRow, made.group) is None:
                made.group = ""
            insert(session, made)
            used: CursorResult[Any] = session.execute(  # type: ignore[assignment]
                update(InvitationRow)
                .where(InvitationRow.digest == digest_of(secret), _unused(), InvitationRow.expires_ms > now_ms)
                .values(used_ms=now_ms, used_by=made.id)
            )
            if used.rowcount != 1:  # another took it in the meantime
                raise _over()
        return User.of(made)

    def withdraw(self, handle: str) -> None:
        """Raises NotFound."""
        with self._database.write() as session:
            rows = session.scalars(select(InvitationRow).where(_unused()))
            found = next((row for row in rows if handle_of(row.digest) == handle), None)
            if found is None:
                raise NotFound(f"no open invitation is {shown(handle)}")
            session.delete(found)

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def _unused() -> Any:
    return InvitationRow.used_ms.is_(None)


def _lock_first(session: Session) -> None:
    """Of two links to the first administrator, made by two starts at once, the second sees what the first has made."""
    session.execute(select(InvitationRow.digest).where(InvitationRow.made_by == FIRST_ADMIN).with_for_update())


def _is_late(session: Session, made_by: str) -> bool:
    """Whether this invites the first administrator, and there is one."""
    return made_by == FIRST_ADMIN and num_admins(session) > 0


def _over() -> Gone:
    return Gone("this invitation has been used, has expired or was withdrawn; ask for another one")
