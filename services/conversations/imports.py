"""Takes conversations of files and of browsers into the database. The routes call it; `reading.py` reads the files.

A conversation is one transaction. A long one is several, and belongs to nobody until the last of them, so that others
can write meanwhile; what a crash leaves of it is removed when it is imported again, or by the purge. One that this
owner has already is skipped, so an import may be repeated. Ids that are in use get new ones.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.orm import Session

from services.conversations.browser import parse_browser
from services.conversations.drafts import Draft, DraftMessage, size_of
from services.conversations.portions import Pace, in_parts, remove
from services.conversations.reading import Found, Skipped, drafted
from services.conversations.stored import StoredBytes
from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow
from services.database.clock import now_ms
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, StorageFull
from services.machine.disk import free_bytes, full_words

LOST_HERE = {"state": "failed", "code": "lost", "error": "it had not ended when it was exported"}
IMPORTING = "importing {}"  # the owner of a conversation that is not whole yet: no user's name has a space
DEAD_MS = 30_000  # whoever imports a conversation writes a part of it more often
RESERVE_BYTES = 1 << 30  # of the disk, left for answers, for jobs and for Redis


class Importer:
    """`is_known(rid, owner)`: the journal has this request of the owner. `stored` bounds what each owner has."""

    def __init__(
        self, database: Database, is_known: Callable[[str, str], bool], stored: StoredBytes | None = None
    ) -> None:
        self._database = database
        self._is_known = is_known
        self._stored_bytes = stored

    def check_room(self) -> None:
        """Raises StorageFull while the disk of the database has no room for an import."""
        path = self._database.url.database if self._database.is_sqlite else None
        if path and path != ":memory:" and (free := free_bytes(Path(path).parent)) < RESERVE_BYTES:
            raise StorageFull(
                f"{full_words(Path(path).parent, free)}; {RESERVE_BYTES >> 20:,} MiB are kept free",
                remedy="ask whoever runs this server to make room there, then import again",
            )

    def take(self, owner: str, file: Iterable[Found]) -> dict[str, Any]:
        """What an import answers: how many were imported, and which were not. Raises StorageFull, and as `file`."""
        self.check_room()
        imported, skipped, pace = 0, list[Skipped](), Pace()
        for found in file:
            why = found if isinstance(found, Skipped) else self._skipped(owner, found, pace)
            imported += why is None
            if why:
                skipped.append(why)
        return {"imported": imported, "skipped": [asdict(each) for each in skipped]}

    def take_over(self, owner: str, kept: object) -> list[str]:
        """The ids of the browser's conversations that are here now. One that cannot be read stays where it is.

        Raises StorageFull at the first for which there is no room.
        """
        if not isinstance(kept, list):
            raise InvalidRequest("conversations must be a list", field="conversations")
        self.check_room()
        taken, pace = list[str](), Pace()
        for raw in kept:
            try:
                draft = drafted(lambda raw=raw: self._browsers(raw, owner))  # type: ignore[misc]
                self._add(owner, draft, pace)
            except (InvalidRequest, Conflict):
                continue
            taken.append(draft.id)
        return taken

    def _browsers(self, raw: object, owner: str) -> Draft:
        return parse_browser(raw, owner, lambda rid: self._is_known(rid, owner))

    def _skipped(self, owner: str, draft: Draft, pace: Pace) -> Skipped | None:
        try:
            return None if self._add(owner, draft, pace) else Skipped(draft.title, "it is here already")
        except (Conflict, StorageFull) as error:
            return Skipped(draft.title, error.message)

    def _add(self, owner: str, draft: Draft, pace: Pace) -> bool:
        """False: this owner has it. Raises Conflict while another process imports it, or takes its ids, StorageFull."""
        self._remove_broken(owner, draft.id, pace)
        parts = list(in_parts(draft.messages, size_of))
        try:
            with self._database.write() as session:
                if _is_here(session, owner, draft):
                    return False
                if self._stored_bytes is not None:
                    self._stored_bytes.check(session, owner, _num_bytes(draft))
                if _collides(session, draft):
                    draft = draft.renamed(lambda: uuid.uuid4().hex)
                    parts = list(in_parts(draft.messages, size_of))
                row = _conversation(owner, draft)
                session.add(row)
                if len(parts) <= 1:
                    _add_messages(session, owner, draft.id, 0, draft.messages)
                else:
                    row.owner, row.deleted_ms = IMPORTING.format(owner), now_ms()
            pace.rest()
            if len(parts) > 1:
                self._add_parts(owner, draft.id, parts, pace)
        except (IntegrityError, NoResultFound):
            raise Conflict("its ids came into use while it was imported; import it again") from None
        return True

    def _add_parts(self, owner: str, cid: str, parts: list[list[DraftMessage]], pace: Pace) -> None:
        place = 0
        for part in parts:
            with self._database.write() as session:
                session.get_one(ConversationRow, cid).deleted_ms = now_ms()
                _add_messages(session, owner, cid, place, part)
            place += len(part)
            pace.rest()
        with self._database.write() as session:
            row = session.get_one(ConversationRow, cid)
            row.owner, row.deleted_ms = owner, None

    def _remove_broken(self, owner: str, cid: str, pace: Pace) -> None:
        """What an import that was interrupted has left of this conversation."""
        with self._database.read() as session:
            row = session.get(ConversationRow, cid)
        if row is None or row.owner != IMPORTING.format(owner):
            return
        if (row.deleted_ms or 0) > now_ms() - DEAD_MS:
            raise Conflict("an import of it has been at work just now; import it again in a minute")
        remove(self._database, cid, pace)


def _num_bytes(draft: Draft) -> int:
    texts = (text for each in draft.messages for text in (each.content, each.reasoning, each.error))
    return sum(len(text.encode()) for text in texts)


def _is_here(session: Session, owner: str, draft: Draft) -> bool:
    same = ConversationRow.id == draft.id
    if draft.source:
        same = or_(same, ConversationRow.source == draft.source)
    found = select(ConversationRow.id).where(same, ConversationRow.owner == owner, ConversationRow.deleted_ms.is_(None))
    return session.scalars(found.limit(1)).first() is not None


def _collides(session: Session, draft: Draft) -> bool:
    if session.get(ConversationRow, draft.id) is not None:
        return True
    ids = [message.id for message in draft.messages]
    parts = (ids[start : start + 500] for start in range(0, len(ids), 500))
    return any(session.scalars(select(MessageRow.id).where(MessageRow.id.in_(part)).limit(1)).first() for part in parts)


def _conversation(owner: str, draft: Draft) -> ConversationRow:
    columns = {name: value for name, value in vars(draft).items() if name != "messages"}
    return ConversationRow(owner=owner, **{**columns, "settings": dict(draft.settings)})


def _add_messages(session: Session, owner: str, cid: str, first: int, messages: Iterable[DraftMessage]) -> None:
    """Rows behind those that are there; `first`: the place of the first of them."""
    session.flush()
    session.add_all(_row(cid, first + number, message) for number, message in enumerate(messages))
    session.flush()
    session.add_all(_judged(owner, message) for message in messages if message.feedback)


def _row(cid: str, place: int, message: DraftMessage) -> MessageRow:
    columns = {name: value for name, value in vars(message).items() if name != "feedback"}
    if message.state in ("open", "unsent") and not message.asked_by:
        columns |= {**LOST_HERE, "ended_ms": message.ended_ms or message.created_ms}
    return MessageRow(conversation_id=cid, place=place, **columns)


def _judged(owner: str, message: DraftMessage) -> FeedbackRow:
    about = {"model": message.model, "parameters": dict(message.parameters), "created_ms": now_ms()}
    return FeedbackRow(message_id=message.id, author=owner, **{**(message.feedback or {}), **about})
