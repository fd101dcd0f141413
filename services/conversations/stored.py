"""How many bytes a user's conversations have, and whether one more may come: the bound of the user, and the disk.

Triggers of the database keep the sum of each conversation (`migrations/versions/0006_stored_bytes.py`): its messages,
its own texts and settings, and 1 KiB for itself. So no writer counts, and nobody reads texts to count them. Judgements
are not counted, but need room. Answers are never refused here: only what would be asked anew, imported, begun, judged
or made larger. Called by whoever does so, in the transaction that stores it.
"""

from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.conversations.conversations import hidden
from services.conversations.tables import ConversationRow
from services.database.database import Database
from services.errors import StorageFull, Unavailable
from services.machine.disk import FEW_BYTES, fullness
from services.settings import variable_of

MIB = 1_048_576
_BYTES = func.coalesce(func.sum(ConversationRow.num_bytes), 0)


class StoredBytes:
    """Of one installation. `max_bytes` is the bound of each user."""

    def __init__(self, database: Database, max_bytes: int, *, few_bytes: int = FEW_BYTES) -> None:
        self.max_bytes = max_bytes
        self._database = database
        self._few_bytes = few_bytes

    def of(self, user: str) -> int:
        """What the user's conversations have, also those of battles without a vote; deleted ones no more."""
        with self._database.read() as session:
            return _stored(session, user)

    def check(self, session: Session, user: str, num_bytes: int) -> None:
        """Raises StorageFull where the user has no room for so many bytes more, Unavailable where the disk has none."""
        self._check_disk()
        room = self.room(session, user)
        if num_bytes > room:
            stored = self.max_bytes - room
            raise StorageFull(
                f"your conversations have {stored / MIB:,.1f} MiB, of {self.max_bytes // MIB:,} MiB that a user may "
                f"have ({variable_of('max_user_conversations_mib')})",
                remedy="delete some; export first what you want to keep",
            )

    def room(self, session: Session, user: str) -> int:
        """How many bytes more the user may have; below 0 where answers came behind the bound."""
        return self.max_bytes - _stored(session, user)

    def _check_disk(self) -> None:
        """Only SQLite's disk is known. What has no row yet is refused, so what was accepted can be written."""
        path = self._database.url.database if self._database.is_sqlite else None
        if path and path != ":memory:" and (full := fullness(Path(path).parent, self._few_bytes)):
            raise Unavailable(full, remedy="make room there; everything goes on by itself", retry_after_s=5.0)


def _stored(session: Session, user: str) -> int:
    of_user = (ConversationRow.owner.in_((user, hidden(user))), ConversationRow.deleted_ms.is_(None))
    return int(session.scalar(select(_BYTES).where(*of_user)) or 0)
