"""Takes conversations of files and of browsers into the database. The routes call it.

Each conversation is one transaction. One that this owner has already is skipped, so an import may be repeated. Ids that
are in use get new ones.
"""

import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any

import orjson
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from services.conversations.browser import parse_browser
from services.conversations.chatgpt import is_chatgpt, parse_chatgpt
from services.conversations.drafts import Draft, DraftMessage, parse_ours
from services.conversations.exports import FORMAT, VERSION
from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow
from services.database.calls import once_more
from services.database.clock import now_ms
from services.database.database import Database
from services.errors import InvalidRequest, TooLarge, shown

MAX_UNPACKED_BYTES = 1_073_741_824
ZIP = b"PK\x03\x04"
LOST_HERE = {"state": "failed", "code": "lost", "error": "it had not ended when it was exported"}


@dataclass(frozen=True)
class Skipped:
    """A conversation that was not taken."""

    title: str
    reason: str


class Importer:
    """`is_known(rid, owner)`: the journal has this request of the owner."""

    def __init__(self, database: Database, is_known: Callable[[str, str], bool]) -> None:
        self._database = database
        self._is_known = is_known

    def take(self, owner: str, file: IO[bytes]) -> dict[str, Any]:
        """What an import answers: how many were imported, and which were not. Raises InvalidRequest, TooLarge."""
        imported, skipped = 0, list[Skipped]()
        for raw in _records(file):
            try:
                is_new = once_more(self._add, owner, _draft(raw))
                reason = "" if is_new else "it is here already"
            except InvalidRequest as error:
                reason = error.message
            imported += not reason
            if reason:
                skipped.append(Skipped(str(raw.get("title") if isinstance(raw, Mapping) else "")[:200], reason))
        return {"imported": imported, "skipped": [asdict(each) for each in skipped]}

    def take_over(self, owner: str, kept: object) -> list[str]:
        """The ids of the browser's conversations that are here now. One that cannot be read stays where it is."""
        if not isinstance(kept, list):
            raise InvalidRequest("conversations must be a list", field="conversations")
        taken: list[str] = []
        for raw in kept:
            try:
                draft = parse_browser(raw, owner, lambda rid: self._is_known(rid, owner))
            except InvalidRequest:
                continue
            once_more(self._add, owner, draft)
            taken.append(draft.id)
        return taken

    def _add(self, owner: str, draft: Draft) -> bool:
        """False: this owner has it."""
        with self._database.write() as session:
            if _is_here(session, owner, draft):
                return False
            if _collides(session, draft):
                draft = draft.renamed(lambda: uuid.uuid4().hex)
            session.add(_conversation(owner, draft))
            session.flush()
            for place, message in enumerate(draft.messages):
                session.add(_row(draft.id, place, message))
                if place % 500 == 499:
                    session.flush()
            session.flush()
            session.add_all(_judged(owner, message) for message in draft.messages if message.feedback)
        return True


def _records(file: IO[bytes]) -> Iterator[Any]:
    """The conversations of a file, undecided."""
    begin = file.read(4)
    file.seek(0)
    if begin == ZIP:
        for data in _unpacked(file):
            yield from _listed(data)
    else:
        yield from _listed(file.read())


def _unpacked(file: IO[bytes]) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            chosen = [info for info in archive.infolist() if _is_conversations(info.filename)]
            if sum(info.file_size for info in chosen) > MAX_UNPACKED_BYTES:
                raise TooLarge(f"the archive holds more than {MAX_UNPACKED_BYTES:,} bytes; import its files one by one")
            if not chosen:
                raise InvalidRequest("the archive has no conversations.json")
            for info in sorted(chosen, key=lambda each: each.filename):
                with archive.open(info) as opened:
                    yield opened.read(MAX_UNPACKED_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise InvalidRequest(f"the archive cannot be unpacked: {error}") from None


def _is_conversations(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.startswith("conversations") and base.endswith(".json")


def _listed(data: bytes) -> Iterable[Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the file is no JSON: {error}"[:300]) from None
    if isinstance(found, dict) and found.get("format") == FORMAT:
        if found.get("version") != VERSION:
            raise InvalidRequest(f"version {shown(found.get('version'))} of our export is unknown to this build")
        found = found.get("conversations")
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise InvalidRequest("the file holds no conversations; import our export, or ChatGPT's conversations.json")
    return found


def _draft(raw: object) -> Draft:
    if not isinstance(raw, Mapping):
        raise InvalidRequest("it is no conversation")
    return parse_chatgpt(raw) if is_chatgpt(raw) else parse_ours(raw)


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


def _row(cid: str, place: int, message: DraftMessage) -> MessageRow:
    columns = {name: value for name, value in vars(message).items() if name != "feedback"}
    if message.state in ("open", "unsent") and not message.asked_by:
        columns |= {**LOST_HERE, "ended_ms": message.ended_ms or message.created_ms}
    return MessageRow(conversation_id=cid, place=place, **columns)


def _judged(owner: str, message: DraftMessage) -> FeedbackRow:
    about = {"model": message.model, "parameters": dict(message.parameters), "created_ms": now_ms()}
    return FeedbackRow(message_id=message.id, author=owner, **{**(message.feedback or {}), **about})
