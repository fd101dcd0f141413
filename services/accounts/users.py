"""People with an account. The web app signs them in; `chatserver users` and the admin page change them."""

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.accounts.groups import check_group
from services.accounts.passwords import Passwords
from services.accounts.tables import SessionRow, UserRow
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, NotFound, Unauthorized, shown

ADMIN = "admin"
ROLES = ("user", ADMIN)
MOST_DISPLAY_CHARS = 80
SEEN_EVERY_MS = 60_000  # how exactly it is known when somebody was here last

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


@dataclass(frozen=True)
class User:
    """One person. `id` is the name that the queue and the conversations know; it never changes."""

    id: str
    name: str
    display_name: str
    email: str
    role: str
    group: str
    disabled: bool
    created_ms: int
    seen_ms: int | None

    @property
    def is_admin(self) -> bool:
        return self.role == ADMIN

    @property
    def shown_name(self) -> str:
        return self.display_name or self.name

    @classmethod
    def of(cls, row: UserRow) -> "User":
        return cls(**{field.name: getattr(row, field.name) for field in fields(cls)})


class Users:
    """The accounts of one installation."""

    def __init__(
        self, database: Database, passwords: Passwords | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._passwords = passwords or Passwords()
        self._clock = clock

    def create(
        self, name: str, password: str | None = None, *, role: str = "user", group: str = "", display_name: str = ""
    ) -> User:
        """A new account; without a password, nobody can sign in to it yet. Raises InvalidRequest, Conflict."""
        row = self.made(name, password, role=role, group=group, display_name=display_name)
        with self._database.write() as session:
            insert(session, row)
        return User.of(row)

    def made(
        self, name: str, password: str | None = None, *, role: str = "user", group: str = "", display_name: str = ""
    ) -> UserRow:
        """The row of a new account, for the transaction that inserts it. Raises InvalidRequest."""
        name = checked_name(name)
        return UserRow(
            id=f"user-{secrets.token_hex(8)}",
            name=name,
            display_name=checked_display_name(display_name),
            email="",
            password="" if password is None else self._passwords.hash(password, name),
            role=checked_role(role),
            group=group,
            disabled=False,
            created_ms=round(self._clock() * 1000),
        )

    def list(self) -> list[User]:
        """All accounts, by name."""
        with self._database.read() as session:
            return [User.of(row) for row in session.scalars(select(UserRow).order_by(UserRow.name))]

    def get(self, user_id: str) -> User:
        """Raises NotFound."""
        with self._database.read() as session:
            return User.of(_row(session, user_id))

    def named(self, name: str) -> User:
        """Raises NotFound."""
        with self._database.read() as session:
            row = session.scalar(select(UserRow).where(UserRow.name == name.strip().lower()))
            if row is None:
                raise NotFound(f"no user is named {shown(name)}; `chatserver users list` lists them")
            return User.of(row)

    def is_disabled(self, user_id: str) -> bool:
        """Whether this is an account that may not be used. A name that is no account is not one."""
        with self._database.read() as session:
            return bool(session.scalar(select(UserRow.disabled).where(UserRow.id == user_id)))

    def has_admin(self) -> bool:
        with self._database.read() as session:
            return bool(num_admins(session))

    def sign_in(self, name: str, password: str) -> User:
        """Raises Unauthorized: the same words after the same time for an unknown name as for a wrong password."""
        with self._database.read() as session:
            row = session.scalar(select(UserRow).where(UserRow.name == name.strip().lower()))
            user, hashed = (User.of(row), row.password) if row else (None, "")
        if not self._passwords.fits(hashed, password) or user is None:
            raise Unauthorized("this name and this password do not belong together")
        if user.disabled:  # said only to who knows the password
            raise Unauthorized("this account is disabled; ask an administrator")
        if self._passwords.is_outdated(hashed):
            self._renew_hash(user, hashed, password)
        return user

    def change_password(self, user_id: str, old: str, new: str) -> None:
        """By the user, who knows the old one. Raises Unauthorized, InvalidRequest. All sessions end."""
        with self._database.read() as session:
            row = _row(session, user_id)
            name, hashed = row.name, row.password
        if not self._passwords.fits(hashed, old):
            raise Unauthorized("this is not your password")
        self._set_password(user_id, self._passwords.hash(new, name))

    def reset_password(self, user_id: str, new: str) -> None:
        """By an administrator. Raises InvalidRequest, NotFound. All sessions end."""
        self._set_password(user_id, self._passwords.hash(new, self.get(user_id).name))

    def change(
        self,
        user_id: str,
        *,
        role: str | None = None,
        disabled: bool | None = None,
        group: str | None = None,
        display_name: str | None = None,
    ) -> User:
        """Change what is given. Who is disabled is signed out. Raises NotFound, InvalidRequest, and Conflict rather
        than leave the installation without an administrator."""
        with self._database.write() as session:
            session.execute(select(UserRow.id).where(UserRow.role == ADMIN).with_for_update())
            row = _row(session, user_id)
            was_admin = row.role == ADMIN and not row.disabled
            row.role = row.role if role is None else checked_role(role)
            row.disabled = row.disabled if disabled is None else disabled
            check_group(session, group or "")
            row.group = row.group if group is None else group
            row.display_name = row.display_name if display_name is None else checked_display_name(display_name)
            session.flush()
            if was_admin and not num_admins(session):
                raise Conflict(f"{row.name} is the only administrator; make another one first")
            if row.disabled:
                session.execute(delete(SessionRow).where(SessionRow.user_id == user_id))
            return User.of(row)

    def of_provider(self, subject: str) -> User | None:
        """Who signs in through a provider as this subject. Raises Unauthorized for a disabled account."""
        with self._database.read() as session:
            row = session.scalar(select(UserRow).where(UserRow.subject == subject))
            if row is not None and row.disabled:
                raise Unauthorized("this account is disabled; ask an administrator")
            return User.of(row) if row else None

    def create_for_provider(self, subject: str, name: str, display_name: str, email: str) -> User:
        """A new account of a provider's subject; a name in use gets a number behind it. Raises Conflict."""
        row = self.made(_free(name), display_name=display_name[:MOST_DISPLAY_CHARS])
        row.subject, row.email, wanted = subject, email[:254], row.name
        with self._database.write() as session:
            taken = set(session.scalars(select(UserRow.name).where(UserRow.name.startswith(wanted))))
            names = (wanted, *(f"{wanted[:60]}-{number}" for number in range(2, len(taken) + 3)))
            row.name = next(each for each in names if each not in taken)
            insert(session, row)
        return User.of(row)

    def _renew_hash(self, user: User, old: str, password: str) -> None:
        try:
            renewed = self._passwords.hash(password, user.name)
        except InvalidRequest:  # a rule of today that the password does not keep; it stays valid
            return
        with self._database.write() as session:
            fits = (UserRow.id == user.id, UserRow.password == old)
            session.execute(update(UserRow).where(*fits).values(password=renewed))

    def _set_password(self, user_id: str, hashed: str) -> None:
        with self._database.write() as session:
            _row(session, user_id).password = hashed
            session.execute(delete(SessionRow).where(SessionRow.user_id == user_id))


def insert(session: Session, row: UserRow) -> None:
    """Add an account. Raises Conflict for a name in use, InvalidRequest for an unknown group."""
    check_group(session, row.group)
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(f"the name {row.name!r} is in use; choose another", field="name") from None


def checked_name(name: object) -> str:
    """A name to sign in with, in lower case. Raises InvalidRequest."""
    found = name.strip().lower() if isinstance(name, str) else ""
    if not _NAME.fullmatch(found):
        raise InvalidRequest(
            f"name {shown(name)} is not 1-64 characters of a-z 0-9 . _ @ + -, with a letter or digit first",
            field="name",
        )
    return found


def checked_role(role: str) -> str:
    if role not in ROLES:
        raise InvalidRequest(f"role {shown(role)} is not one of: {', '.join(ROLES)}", field="role")
    return role


def checked_display_name(text: str) -> str:
    found = " ".join(text.split())
    if len(found) > MOST_DISPLAY_CHARS or not found.isprintable():
        raise InvalidRequest(f"a name to show has at most {MOST_DISPLAY_CHARS} characters", field="display_name")
    return found


def _free(name: str) -> str:
    """What a provider calls somebody, in the characters of a name."""
    return re.sub(r"[^a-z0-9._@+-]", "-", name.strip().lower()).lstrip("._@+-")[:64] or "user"


def num_admins(session: Session) -> int:
    """How many administrators can sign in."""
    active = (UserRow.role == ADMIN, UserRow.disabled.is_(False))
    return session.scalar(select(func.count()).select_from(UserRow).where(*active)) or 0


def _row(session: Session, user_id: Any) -> UserRow:
    row = session.get(UserRow, user_id)
    if row is None:
        raise NotFound(f"no user has the id {shown(user_id)}")
    return row
