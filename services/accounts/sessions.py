"""Signed-in browsers. A browser's cookie has a secret; the database has its digest, so a copy of it signs nobody in."""

import hashlib
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from services.accounts.tables import SessionRow, UserRow
from services.accounts.users import SEEN_EVERY_MS, User
from services.database.database import Database
from services.errors import NotFound, shown

LIFETIME_MS = 30 * 86_400_000  # since it was seen last
MOST_BROWSER_CHARS = 200
HANDLE_CHARS = 16


@dataclass(frozen=True)
class SignedInBrowser:
    """One session, as its user sees it. `handle` names it and opens nothing."""

    handle: str
    browser: str
    address: str
    created_ms: int
    seen_ms: int


class Sessions:
    """The sessions of all users."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def begin(self, user_id: str, browser: str, address: str) -> str:
        """A new session; returns its secret, which nobody can read again. Sessions that are over are deleted."""
        secret, now_ms = secrets.token_urlsafe(32), self._now_ms()
        row = SessionRow(
            digest=digest_of(secret),
            user_id=user_id,
            browser=browser[:MOST_BROWSER_CHARS],
            address=address,
            created_ms=now_ms,
            seen_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
        )
        with self._database.write() as session:
            session.execute(delete(SessionRow).where(SessionRow.expires_ms <= now_ms))
            session.execute(update(UserRow).where(UserRow.id == user_id).values(seen_ms=now_ms))
            session.add(row)
        return secret

    def user_of(self, secret: str) -> User | None:
        """Whose session this is; None when it has ended, is over, or its user is disabled."""
        if not secret:
            return None
        digest, now_ms = digest_of(secret), self._now_ms()
        with self._database.read() as session:
            found = session.execute(
                select(SessionRow.seen_ms, UserRow)
                .join(UserRow, UserRow.id == SessionRow.user_id)
                .where(SessionRow.digest == digest, SessionRow.expires_ms > now_ms, UserRow.disabled.is_(False))
            ).first()
            seen_ms, user = (found[0], User.of(found[1])) if found else (0, None)
        if user and now_ms - seen_ms >= SEEN_EVERY_MS:
            self._note_seen(digest, user.id, now_ms)
        return user

    def holding(self, digests: Collection[str]) -> set[str]:
        """Which of these still stand for a user."""
        with self._database.read() as session:
            return set(
                session.scalars(
                    select(SessionRow.digest)
                    .join(UserRow, UserRow.id == SessionRow.user_id)
                    .where(SessionRow.digest.in_(digests), SessionRow.expires_ms > self._now_ms())
                    .where(UserRow.disabled.is_(False))
                )
            )

    def of_user(self, user_id: str) -> list[SignedInBrowser]:
        """The sessions of a user, the one seen last first."""
        with self._database.read() as session:
            rows = session.scalars(
                select(SessionRow)
                .where(SessionRow.user_id == user_id, SessionRow.expires_ms > self._now_ms())
                .order_by(SessionRow.seen_ms.desc(), SessionRow.digest)
            )
            return [
                SignedInBrowser(handle_of(row.digest), row.browser, row.address, row.created_ms, row.seen_ms)
                for row in rows
            ]

    def end(self, secret: str) -> None:
        """Sign this browser out; a secret that stands for nobody is no mistake."""
        with self._database.write() as session:
            session.execute(delete(SessionRow).where(SessionRow.digest == digest_of(secret)))

    def end_of_user(self, user_id: str, handle: str) -> None:
        """Sign one browser of a user out. Raises NotFound."""
        with self._database.write() as session:
            mine = session.scalars(select(SessionRow).where(SessionRow.user_id == user_id))
            found = next((row for row in mine if handle_of(row.digest) == handle), None)
            if found is None:
                raise NotFound(f"you have no session {shown(handle)}; it may have ended")
            session.delete(found)

    def _note_seen(self, digest: str, user_id: str, now_ms: int) -> None:
        values = {"seen_ms": now_ms, "expires_ms": now_ms + LIFETIME_MS}
        with self._database.write() as session:
            session.execute(update(SessionRow).where(SessionRow.digest == digest).values(values))
            session.execute(update(UserRow).where(UserRow.id == user_id).values(seen_ms=now_ms))

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def digest_of(secret: str) -> str:
    """256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def handle_of(digest: str) -> str:
    return digest[:HANDLE_CHARS]
