"""Takes ended answers from the journal to their rows: exactly once, whole, and without any reader.

Every web process runs an `Archivist`; `chatserver archive` and a task of Celery do one round where no web process runs.
Several may work at once: the update that closes a row asks whether the row is still open, so one of them does it.

The journal is the truth until then. It is kept for `answer_ttl_s` after the end, so archivists may be away that long;
less the fuller the memory of Redis is, down to ten minutes, and ten minutes where nobody began a cancelled question.
"""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, or_, select, update

from services.chat.journal import Head
from services.chat.moderation import FinishedAnswer
from services.chat.reader import Done, JournalView, in_parts
from services.chat.requests import Requests
from services.chat.said import Said
from services.connection.connect import translated
from services.conversations.conversations import Conversations
from services.conversations.tables import ConversationRow, MessageRow
from services.database.calls import Run, at_once
from services.database.clock import now_ms
from services.database.database import Database
from services.errors import Unavailable

log = logging.getLogger("chatserver.archive")

LOOK_S = 1.0
AT_ONCE = 8  # a moderation may take seconds for each answer
WHOLE_S = 60.0  # between rounds that also look at what has long been unsent, and purge
YOUNG_MS = 120_000
LOST_MS = 60_000  # Redis does not know the request for so long: whoever has it would have submitted it again
UNSENT_MS = 86_400_000
LOST = "lost"
UNFINISHED = ("open", "unsent")


@dataclass(frozen=True)
class Unfinished:
    """An answer whose row is not closed."""

    id: str
    asked_by: str
    state: str
    created_ms: int
    missing_ms: int | None
    code: str
    error: str
    model: str
    extra: dict[str, Any]


@dataclass(frozen=True)
class _Ended:
    """What the journal has of an answer that ended: reasoning and answer apart."""

    said: Said
    end: Done
    ended_ms: int

    @classmethod
    def of(cls, head: Head, events: Any) -> "_Ended":
        view = JournalView.of(events)
        said = Said()
        for text in in_parts(view.text, view.parts):
            said.take(text)
        end = view.end or Done(head.status, head.toff, head.code, "", {})
        return cls(said, end, head.ended_ms or now_ms())

    def values(self) -> dict[str, Any]:
        """What its closed row has: the text stands behind what it began with."""
        return {
            "content": MessageRow.content + self.said.answer,
            "reasoning": MessageRow.reasoning + self.said.reasoning,
            "state": self.end.status,
            "code": self.end.code,
            "error": self.end.message,
            "usage": self.end.usage or None,
            "ended_ms": self.ended_ms,
        }


class Archivist:
    """`run` calls what uses the database; the web process gives a function that does so in a thread."""

    def __init__(self, database: Database, requests: Requests, run: Run = at_once) -> None:
        self._database = database
        self._conversations = Conversations(database)
        self._requests = requests
        self._journal = requests.journal
        self._run = run
        self._absent: dict[str, int] = {}  # request → audits in a row that did not find it in its queue
        self._unreadable: set[str] = set()  # told once
        self._woken = threading.Event()

    def ended(self, rid: str) -> None:
        """Somebody saw the end of an answer: look now. Called from any thread."""
        self._woken.set()

    def serve(self, stopping: threading.Event) -> None:
        """Look about once a second until `stopping` is set. What cannot be reached is said once, and tried again."""
        complaint, whole_at = "", 0.0
        while not stopping.is_set():
            self._woken.wait(LOOK_S)
            self._woken.clear()
            try:
                is_whole = not whole_at or time.monotonic() - whole_at > WHOLE_S
                self.round(whole=is_whole)
                if is_whole:
                    self._run(self._conversations.purge)
                    whole_at = time.monotonic()
                found = ""
            except Unavailable as error:
                found = f"answers are not archived at present: {error}"
            except Exception:  # of one round: the next one may go well
                log.exception("a round of the archivist failed")
                found = "a round of the archivist failed"
            if found != complaint:
                complaint = found
                log.warning("%s", complaint or "answers are archived again")

    def round(self, *, whole: bool = True) -> int:
        """Look at each unfinished row once; how many were closed. Raises Unavailable.

        A round that is not whole leaves out what was refused or has long been unsent: that may be much.
        """
        rows: list[Unfinished] = self._run(self._unfinished, whole)
        self._unreadable &= {row.id for row in rows}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            closed = sum(pool.map(self._safely, rows))
        if whole:
            self._absent = {row.id: self._audit(row.id) for row in rows if row.state == "open"}
        return closed

    def catch_up(self, cid: str) -> None:
        """Close what has ended in one conversation. Raises Unavailable."""
        for row in self._run(self._unfinished, True, cid):
            self._safely(row)

    def _safely(self, row: Unfinished) -> bool:
        """As `_look`. An answer that this build cannot read stays for a newer one, and costs the others nothing."""
        try:
            return self._look(row)
        except Unavailable:
            raise
        except Exception:
            if row.id not in self._unreadable:
                self._unreadable.add(row.id)
                log.exception("an answer cannot be archived", extra={"rid": row.id})
            return False

    def _audit(self, rid: str) -> int:
        """Nobody may be watching: what was lost in its queue is queued again here, what waited too long expires."""
        with translated():
            head = self._journal.head(rid)
            return self._requests.audit(rid, head, self._absent.get(rid, 0)) if head is not None else 0

    def _unfinished(self, whole: bool, cid: str = "") -> list[Unfinished]:
        columns = [getattr(MessageRow, name) for name in Unfinished.__dataclass_fields__]
        unfinished = select(*columns).where(MessageRow.state.in_(UNFINISHED))
        if not whole:
            young = and_(MessageRow.code == "", MessageRow.created_ms > now_ms() - YOUNG_MS)
            unfinished = unfinished.where(or_(MessageRow.state == "open", young))
        if cid:
            unfinished = unfinished.where(MessageRow.conversation_id == cid)
        with self._database.read() as session:
            return [Unfinished(*row) for row in session.execute(unfinished)]

    def _look(self, row: Unfinished) -> bool:
        with translated():
            head = self._journal.glance(row.id)
            ours = head is not None and head.user == row.asked_by
            found = self._journal.read(row.id) if head is not None and ours and head.ended else None
        if found is not None:
            return bool(self._run(self._close, row.id, self._judged(row, _Ended.of(*found))))
        if ours:
            self._run(self._found, row)
            return False
        return bool(self._run(self._missing, row))

    def _judged(self, row: Unfinished, ended: _Ended) -> dict[str, Any]:
        """What a closed row has, with the verdict of the moderation."""
        said = ended.said
        with translated():
            answer = FinishedAnswer(row.id, row.asked_by, row.model, said.answer, said.reasoning)
            verdicts = self._requests.judgement(answer)
        values = ended.values()
        return {**values, "extra": {**row.extra, "moderation": verdicts}} if verdicts else values

    def _found(self, row: Unfinished) -> None:
        """Its request runs or waits."""
        if row.state == "unsent" or row.missing_ms is not None:
            opened = {"state": "open", "code": "", "error": "", "missing_ms": None}
            with self._database.write() as session:
                session.execute(_still_unfinished(row.id).values(**opened))

    def _missing(self, row: Unfinished) -> bool:
        """Redis does not know its request; whether the row was closed for that."""
        if row.state == "unsent":
            return now_ms() - row.created_ms > UNSENT_MS and self._close(row.id, _never_sent(row))
        if row.missing_ms is None:
            with self._database.write() as session:
                session.execute(_still_unfinished(row.id).values(missing_ms=now_ms()))
            return False
        return now_ms() - row.missing_ms > LOST_MS and self._close(row.id, _lost())

    def _close(self, rid: str, values: dict[str, Any]) -> bool:
        """Whether this call did it."""
        with self._database.write() as session:
            closed = session.execute(_still_unfinished(rid).values(**values, missing_ms=None))
            if not closed.rowcount:  # type: ignore[attr-defined]
                return False
            its_own = select(MessageRow.conversation_id).where(MessageRow.id == rid).scalar_subquery()
            older = ConversationRow.updated_ms < values["ended_ms"]
            changed = update(ConversationRow).where(ConversationRow.id == its_own, older)
            session.execute(changed.values(updated_ms=values["ended_ms"]))
        log.info("archived", extra={"rid": rid, "status": values["state"]})
        return True


def _still_unfinished(rid: str) -> Any:
    return update(MessageRow).where(MessageRow.id == rid, MessageRow.state.in_(UNFINISHED))


def _lost() -> dict[str, Any]:
    why = "Redis no longer knows the request, so the answer cannot come; ask again"
    return {"state": "failed", "code": LOST, "error": why, "ended_ms": now_ms()}


def _never_sent(row: Unfinished) -> dict[str, Any]:
    error = row.error or "the question was never accepted; ask again"
    return {"state": "failed", "code": row.code or LOST, "error": error, "ended_ms": now_ms()}
