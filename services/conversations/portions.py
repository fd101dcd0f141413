"""Work on long conversations in transactions that are short: others wait for SQLite's lock no more than 10 seconds.

The import and the purge call it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from sqlalchemy import delete, func, select

from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database

PART_CHARS = 500_000  # the index of trigrams takes about a quarter of a second for so many
PART_ROWS = 500
BUSY_S, REST_S = 0.5, 0.25  # SQLite has no queue for its lock: who waits looks for it every 0.1 s

T = TypeVar("T")


class Pace:
    """Rests after each half second of work, so that others get the lock."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def rest(self) -> None:
        """Call it between two transactions."""
        worked_s = time.monotonic() - self._since
        if worked_s > BUSY_S:
            time.sleep(max(REST_S, worked_s / 2))  # on a machine that is slow for us, others are slow to notice
            self._since = time.monotonic()


def in_parts(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The same in their order, about PART_CHARS at a time."""
    part, size = list[T](), 0
    for item in items:
        part.append(item)
        size += size_of(item)
        if size >= PART_CHARS or len(part) >= PART_ROWS:
            yield part
            part, size = [], 0
    if part:
        yield part


def remove(database: Database, cid: str, pace: Pace) -> bool:
    """Remove a conversation that nobody can see, the newest messages first. Whether this call removed its row."""
    sizes = select(MessageRow.id, func.length(MessageRow.content)).where(MessageRow.conversation_id == cid)
    with database.read() as session:
        messages = [(mid, size) for mid, size in session.execute(sizes.order_by(MessageRow.place.desc()))]
    for part in in_parts(messages, lambda each: int(each[1])):
        with database.write() as session:
            session.execute(delete(MessageRow).where(MessageRow.id.in_([mid for mid, _ in part])))
        pace.rest()
    with database.write() as session:
        removed = session.execute(delete(ConversationRow).where(ConversationRow.id == cid))
        return bool(removed.rowcount)  # type: ignore[attr-defined]
