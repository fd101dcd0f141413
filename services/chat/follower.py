"""A reader with its hands: the Redis calls that following one request needs, and the repair of what was lost.

The driver owns the live channel and calls `poll` whenever `due` says so; the web relay, the CLI and the tests differ
only in how they wait.
"""

import logging

from services.chat.journal import Head
from services.chat.reader import JournalReader, ReaderEvent
from services.chat.requests import Requests
from services.errors import Forbidden, Gone
from services.wire.messages import ChatRequest, Event

log = logging.getLogger("chatserver.requests")

GONE_GRACE_S = 10.0


class Follower:
    """Follows one request of one user. `request` is the submitter's own copy, if this is the submitter."""

    def __init__(
        self,
        requests: Requests,
        rid: str,
        user: str,
        now: float,
        *,
        offset: int = 0,
        nonce: str = "",
        request: ChatRequest | None = None,
    ) -> None:
        self.rid = rid
        self.model = request.model if request else ""
        self.reader = JournalReader(now, offset=offset, nonce=nonce)
        self._requests = requests
        self.user = user
        self.submitted_at = now  # by the caller's clock; exact once the head was read
        self._request = request
        self._missing_since: float | None = None
        self._absent = 0  # audits in a row that found no queue entry

    def live(self, event: Event, now: float) -> list[ReaderEvent]:
        return self.reader.live(event, now)

    def due(self, now: float) -> bool:
        return self.reader.wants(now) is not None

    def poll(self, now: float) -> list[ReaderEvent]:
        """Do what the reader wants now. Raises Forbidden for another user's request; redis errors pass through."""
        want = self.reader.wants(now)
        if want == "journal":
            self.reader.reading()
            try:
                found = self._requests.journal.read(self.rid)
            except Exception:
                self.reader.resubscribed()
                raise
            if found is None:
                return self._missing(now)
            self._found(found[0], now)
            return self.reader.journal(found[1], now)
        if want is not None:
            head = self._requests.journal.head(self.rid)
            if head is None:
                return self._missing(now)
            self._found(head, now)
            self.reader.head(head, now)
            if want == "audit":
                self._audit(head)
                self.reader.audited(now)
        return []

    def _found(self, head: Head, now: float) -> None:
        if head.user != self.user:
            raise Forbidden(f"request {self.rid} belongs to another user")
        self.model = head.model
        self.submitted_at = now - head.age_s
        self._missing_since = None

    def _audit(self, head: Head) -> None:
        """A request that has not ended and is twice not in its queue was lost there: queue it again."""
        if head.ended:
            return
        if self._requests.queue(head.model).holds(self.rid):
            self._absent = 0
            if head.epoch == 0:
                self._requests.expire(self.rid, head)
            return
        self._absent += 1
        payload = head.payload or (self._request.encode() if self._request else b"")
        if self._absent >= 2 and payload:
            self._requests.requeue(head, payload)
            self._absent = 0

    def _missing(self, now: float) -> list[ReaderEvent]:
        """No state: its submitter submits again; anyone else waits a little, for the submitter to do so."""
        if self._request is not None:
            self._requests.submit(self._request)
            log.info("submitted again", extra={"rid": self.rid})
            self.reader.resubscribed()
            return []
        if self._missing_since is None:
            self._missing_since = now
        if now - self._missing_since >= GONE_GRACE_S:
            return self.reader.gone(Gone.code, f"request {self.rid} is unknown or has expired")
        self.reader.audited(now)
        return []
