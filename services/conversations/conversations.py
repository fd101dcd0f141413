"""The conversations of one installation: made, listed, read, edited, deleted. The routes and the commands call it.

Another owner's conversation is NotFound, so that ids tell nothing. `asking.py` appends questions and answers.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session

from services.conversations.portions import Pace, remove
from services.conversations.shapes import Tree, summary
from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow
from services.conversations.titles import NAMELESS
from services.database.calls import once_more
from services.database.clock import now_ms
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, NotFound, shown

Check = Callable[[Session, str, int], None]
"""check(session, user, num_bytes): `StoredBytes.check`"""

UNDO_MS = 600_000
MAX_LISTED = 200


@dataclass(frozen=True)
class Page:
    """A part of the list of conversations. `next`: the cursor behind it; None at the end."""

    conversations: list[dict[str, Any]]
    next: str | None
    folders: list[str]

    def as_dict(self) -> dict[str, Any]:
        return {"conversations": self.conversations, "next": self.next, "folders": self.folders}


class Conversations:
    """Every method is one transaction, except `purge`. `check` refuses what would need room that a user has not."""

    def __init__(self, database: Database, check: Check = lambda session, user, num_bytes: None) -> None:
        self._database = database
        self._check = check

    # -- reading -------------------------------------------------------------------------------------------------

    def page(self, owner: str, *, before: str = "", limit: int = 50, folder: str | None = None) -> Page:
        """The pinned ones on the first page, then the others, newest first. Raises InvalidRequest for a bad cursor."""
        ours = _of(owner).order_by(ConversationRow.updated_ms.desc(), ConversationRow.id.desc())
        if folder is not None:
            ours = ours.where(ConversationRow.folder == folder)
        others = ours.where(~ConversationRow.pinned).limit(min(max(limit, 1), MAX_LISTED) + 1)
        with self._database.read() as session:
            pinned = [] if before else list(session.scalars(ours.where(ConversationRow.pinned)))
            rows = list(session.scalars(others.where(_behind(before)) if before else others))
            shown_rows = rows[: min(max(limit, 1), MAX_LISTED)]
            running = _running(session, [row.id for row in (*pinned, *shown_rows)])
            folders = _folders(session, owner)
        listed = [summary(row, running=row.id in running) for row in (*pinned, *shown_rows)]
        return Page(listed, _cursor(shown_rows[-1]) if len(rows) > len(shown_rows) else None, folders)

    def ids(self, owner: str) -> list[str]:
        """Of all conversations, oldest first."""
        ours = select(ConversationRow.id).where(ConversationRow.owner == owner, ConversationRow.deleted_ms.is_(None))
        with self._database.read() as session:
            return list(session.scalars(ours.order_by(ConversationRow.created_ms, ConversationRow.id)))

    def find(self, owner: str, cid: str) -> Tree:
        """Raises NotFound."""
        with self._database.read() as session:
            return _tree(session, owned(session, owner, cid))

    def shared(self, secret: str) -> dict[str, Any]:
        """What the read-only link shows: the branch that its owner looks at. Raises NotFound."""
        shared = select(ConversationRow).where(
            ConversationRow.shared_as == secret, ConversationRow.deleted_ms.is_(None)
        )
        with self._database.read() as session:
            found = session.scalars(shared).one_or_none() if secret else None
            if found is None:
                raise NotFound("this link does not lead to a conversation (any more)")
            branch = [message for message in path_of(session, found.id, found.current_id) if not message.hidden]
        return {**Tree(found, branch, {}).as_dict(), "system": "", "folder": "", "settings": {}}

    # -- writing -------------------------------------------------------------------------------------------------

    def create(self, owner: str, cid: str, edits: dict[str, Any]) -> tuple[Tree, bool]:
        """A conversation, and whether it is new. `edits` as `parse_edits` gives them.

        Raises Conflict, and as `check`.
        """
        return once_more(self._created, owner, cid, edits)

    def _created(self, owner: str, cid: str, edits: dict[str, Any]) -> tuple[Tree, bool]:
        with self._database.write() as session:
            found = session.get(ConversationRow, cid)
            if found is not None and (found.owner != owner or found.deleted_ms is not None):
                raise Conflict(f"the id {cid!r} is in use; choose another id", field="id")
            row = found or new_conversation(session, owner, cid, **edits)
            session.flush()
            if found is None:
                self._check(session, owner, 0)
            return _tree(session, row), found is None

    def edit(self, owner: str, cid: str, edits: dict[str, Any]) -> dict[str, Any]:
        """Change fields; returns the summary.

        Raises NotFound, InvalidRequest for a foreign `current_id`, and as `check` for what makes it larger.
        """
        with self._database.write() as session:
            row = owned(session, owner, cid)
            if edits.get("current_id") is not None:
                _check_inside(session, cid, edits["current_id"])
            if "title" in edits:
                edits = {**edits, "titled_by": "user"}
            before = row.num_bytes
            for name, value in edits.items():
                setattr(row, name, value)
            session.flush()
            session.refresh(row, ["num_bytes"])
            if row.num_bytes > before:
                self._check(session, owner, 0)
            return summary(row, running=cid in _running(session, [cid]))

    def name(self, owner: str, cid: str, title: str, before: str) -> dict[str, Any]:
        """Give it the title of a model, unless it is called otherwise than `before` by now; returns the summary."""
        with self._database.write() as session:
            row = owned(session, owner, cid)
            if row.title == before:
                row.title, row.titled_by = title, "model"
            return summary(row, running=cid in _running(session, [cid]))

    def delete(self, owner: str, cid: str) -> tuple[int, list[str]]:
        """Until when it can be restored, and the ids of its answers that may run."""
        with self._database.write() as session:
            row = owned(session, owner, cid)
            row.deleted_ms = now_ms()
            unfinished = select(MessageRow.id).where(
                MessageRow.conversation_id == cid, MessageRow.state.in_(("open", "unsent"))
            )
            return row.deleted_ms + UNDO_MS, list(session.scalars(unfinished))

    def restore(self, owner: str, cid: str) -> dict[str, Any]:
        """Take a deletion back. Raises NotFound once it is too late, and as `check`."""
        with self._database.write() as session:
            row = session.get(ConversationRow, cid)
            if row is None or row.owner != owner or _is_over(row):
                raise _unknown(cid)
            row.deleted_ms = None
            session.flush()
            self._check(session, owner, 0)
            return summary(row, running=cid in _running(session, [cid]))

    def purge(self) -> int:
        """Remove what was deleted and can no longer be restored; how many conversations that were."""
        old = select(ConversationRow.id).where(ConversationRow.deleted_ms < now_ms() - UNDO_MS)
        with self._database.read() as session:
            ids = list(session.scalars(old))
        pace = Pace()
        return sum(remove(self._database, cid, pace) for cid in ids)

    def share(self, owner: str, cid: str) -> str:
        """The secret of the read-only link; the same one until `unshare`."""
        with self._database.write() as session:
            row = owned(session, owner, cid)
            row.shared_as = row.shared_as or secrets.token_urlsafe(24)
            return row.shared_as

    def unshare(self, owner: str, cid: str) -> None:
        with self._database.write() as session:
            owned(session, owner, cid).shared_as = None


def owned(session: Session, owner: str, cid: str, *, lock: bool = False) -> ConversationRow:
    """An owner's conversation that is not deleted. Raises NotFound."""
    row = session.get(ConversationRow, cid, with_for_update=True if lock else None)
    if row is None or row.owner != owner or row.deleted_ms is not None:
        raise _unknown(cid)
    return row


def hidden(user: str) -> str:
    """Whose a conversation is that no route shows yet, as that of a battle without a vote. No user has such a name."""
    return f"arena:{user}"


def new_conversation(session: Session, owner: str, cid: str, *, title: str = "", **fields: Any) -> ConversationRow:
    """A row that is added to the session."""
    now = now_ms()
    times = {"created_ms": now, "updated_ms": now}
    named = {"title": title or NAMELESS, "titled_by": "user" if title else "first_words"}
    row = ConversationRow(id=cid, owner=owner, **{**_DEFAULTS, **times, **named, **fields})
    session.add(row)
    return row


_DEFAULTS: dict[str, Any] = {"model": "", "system": "", "settings": {}, "folder": "", "pinned": False, "source": ""}


def path_of(session: Session, cid: str, last: str | None) -> list[MessageRow]:
    """The messages from the root to `last`."""
    links = select(MessageRow.id, MessageRow.parent_id).where(MessageRow.conversation_id == cid)
    parents: dict[str, str | None] = dict(session.execute(links).all())
    ids: list[str] = []
    while last is not None:
        ids.append(last)
        last = parents[last]
    rows = {row.id: row for row in session.scalars(select(MessageRow).where(MessageRow.id.in_(ids)))}
    return [rows[each] for each in reversed(ids)]


def _tree(session: Session, row: ConversationRow) -> Tree:
    messages = list(
        session.scalars(select(MessageRow).where(MessageRow.conversation_id == row.id).order_by(MessageRow.place))
    )
    newest = (
        select(FeedbackRow)
        .join(MessageRow, MessageRow.id == FeedbackRow.message_id)
        .where(MessageRow.conversation_id == row.id, FeedbackRow.author == row.owner)
        .order_by(FeedbackRow.id)
    )
    return Tree(row, messages, {each.message_id: each for each in session.scalars(newest)})


def _of(owner: str) -> Select[ConversationRow]:
    return select(ConversationRow).where(ConversationRow.owner == owner, ConversationRow.deleted_ms.is_(None))


def _cursor(row: ConversationRow) -> str:
    return f"{row.updated_ms}-{row.id}"


def _behind(cursor: str) -> Any:
    updated_ms, _, cid = cursor.partition("-")
    if not (updated_ms.isascii() and updated_ms.isdigit() and len(updated_ms) <= 15):
        raise InvalidRequest(f"before={shown(cursor)} is not the `next` of a page", field="before")
    older = ConversationRow.updated_ms < int(updated_ms)
    return or_(older, and_(ConversationRow.updated_ms == int(updated_ms), ConversationRow.id < cid))


def _running(session: Session, ids: Iterable[str]) -> set[str]:
    running = select(MessageRow.conversation_id).where(
        MessageRow.conversation_id.in_(list(ids)), MessageRow.state == "open"
    )
    return set(session.scalars(running))


def _folders(session: Session, owner: str) -> list[str]:
    names = select(ConversationRow.folder).distinct()
    ours = names.where(
        ConversationRow.owner == owner, ConversationRow.deleted_ms.is_(None), ConversationRow.folder != ""
    )
    return sorted(session.scalars(ours))


def _check_inside(session: Session, cid: str, mid: str) -> None:
    inside = select(func.count()).where(MessageRow.id == mid, MessageRow.conversation_id == cid)
    if not session.scalar(inside):
        raise InvalidRequest(f"current_id={mid!r} is no message of this conversation", field="current_id")


def _is_over(row: ConversationRow) -> bool:
    """The purge may be removing it, in parts."""
    return row.deleted_ms is not None and row.deleted_ms < now_ms() - UNDO_MS


def _unknown(cid: str) -> NotFound:
    return NotFound(f"no conversation has the id {cid!r:.80}; it may have been deleted")
