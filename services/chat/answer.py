"""One answer in this process: its reader with its hands, that is, the Redis calls and the repair of what was lost.

`feed.py` owns the live channel and calls `poll` whenever `due` says so. Threads may call anything here at once, but one
at a time `poll`.
"""

import logging
import threading
from dataclasses import dataclass

from redis.exceptions import RedisError

from services.chat.journal import Head
from services.chat.reader import JournalReader, Status, WaitingState
from services.chat.requests import Requests
from services.errors import Busy, Forbidden, Gone, UnknownModel
from services.wire.messages import ChatRequest, Event

log = logging.getLogger("chatserver.requests")

GONE_GRACE_S = 10.0


@dataclass(frozen=True)
class Outage:
    """Redis does not answer: since when by the caller's clock, and how that showed."""

    since: float
    reason: str


class Answer:
    """The answer to one request of one user."""

    def __init__(self, requests: Requests, rid: str, user: str, now: float) -> None:
        self.rid = rid
        self.user = user
        self.model = ""  # as soon as it is known
        self.reader = JournalReader(now, requests.interrupted_s)
        self.submitted_at = now  # by the caller's clock; exact once the head was read
        self.outage: Outage | None = None
        self._requests = requests
        self._writing = threading.Lock()  # whoever changes the reader's text; a follower only looks
        self._request: ChatRequest | None = None
        self._note = b""  # kept with it
        self._missing_since: float | None = None
        self._absent = 0  # audits in a row that found no queue entry

    def submitted(self, request: ChatRequest, note: bytes = b"") -> None:
        """The submitter is here: its first copy, which Redis keeps, can be submitted again if it is lost there."""
        self._request, self.model, self._note = self._request or request, request.model, self._note or note

    def live(self, event: Event, now: float) -> None:
        with self._writing:
            self.reader.live(event, now)

    def resubscribed(self) -> None:
        self.reader.resubscribed()

    def ahead(self, offset: int, nonce: str) -> int:
        """A cursor has come; if it is ahead of us, the journal is read again. The number of the reads begun so far."""
        with self._writing:
            if not self.reader.knows(offset, nonce):
                self.reader.resubscribed()
            return self.reader.num_reads

    def due(self, now: float) -> bool:
        return self.reader.wants(now) is not None

    @property
    def waits(self) -> bool:
        """Whether it may stand in the line of its model."""
        return bool(self.model) and not self.reader.running and self.reader.end is None

    def queued(self, state: WaitingState, position: int, eta_s: int | None) -> None:
        with self._writing:
            self.reader.queued(Status(state, position, eta_s if state == "queued" else None))

    def silent(self, now: float) -> bool:
        """Time has passed; whether that says something new."""
        before = self.reader.status
        with self._writing:
            self.reader.silent(now)
        return self.reader.status is not before

    def give_up(self, code: str, message: str) -> None:
        """End it here: nobody can bring it back, or it is not this user's."""
        with self._writing:
            self.reader.gone(code, message)

    def unreachable(self, error: RedisError, now: float) -> None:
        """Redis did not answer; the next `poll` that succeeds ends the outage."""
        self.outage = self.outage or Outage(now, str(error))

    def poll(self, now: float) -> None:
        """Do what the reader wants now. Raises Forbidden for another user's request; redis errors pass through."""
        want = self.reader.wants(now)
        if want == "journal":
            self._read(now)
        elif want is not None:
            self._look(now, audit=want == "audit")
        self.outage = None

    def _read(self, now: float) -> None:
        with self._writing:
            self.reader.reading()
        try:
            found = self._requests.journal.read(self.rid)
        except Exception:
            self.reader.resubscribed()
            raise
        if found is None:
            self._missing(now)
            return
        self._found(found[0], now)
        with self._writing:
            self.reader.journal(found[1], now)

    def _look(self, now: float, *, audit: bool) -> None:
        head = self._requests.journal.head(self.rid)
        if head is None:
            self._missing(now)
            return
        self._found(head, now)
        self.reader.head(head, now)
        if audit:
            own = self._request.encode() if self._request else b""
            self._absent = self._requests.audit(self.rid, head, self._absent, own)
            self.reader.audited(now)

    def _found(self, head: Head, now: float) -> None:
        if head.user != self.user:
            raise Forbidden(f"request {self.rid} belongs to another user")
        self.model = head.model
        self.submitted_at = now - head.age_s
        self._missing_since = None

    def _missing(self, now: float) -> None:
        """No state: its submitter submits again; anyone else waits a little, for the submitter to do so."""
        if self._missing_since is None:
            self._missing_since = now
        if self._request is not None:
            try:
                self._requests.submit(self._request, note=self._note)
            except (Busy, UnknownModel):  # an emptied server: workers announce themselves again, queues drain
                if now - self._missing_since >= GONE_GRACE_S:
                    raise
                self.reader.audited(now)
                return
            log.info("submitted again", extra={"rid": self.rid})
            self.reader.resubscribed()
            return
        if now - self._missing_since >= GONE_GRACE_S:
            self.give_up(Gone.code, f"request {self.rid} is unknown or has expired")
        else:
            self.reader.audited(now)
