"""The leases on one model's requests, as one worker sees them. It renews its own and frees requests of silent workers.

`workers/loop.py` calls it a few times a second. It uses two clocks. The server's says how long an entry is idle. But
the server may stand still and its clock may step, and neither means that an owner is silent: so this worker's own clock
counts, too.
"""

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass

from services.chat.journal import Journal
from services.chat.queue import RETRY_PLACE, SUSPECT_PLACE, Entry, PendingEntry, RequestQueue
from services.wire.keys import HANDBACK, NAME, VERSION

log = logging.getLogger("chatserver.worker")

RESCUE_S = 10.0
FORGET_WORKER_S = 3600.0


@dataclass(frozen=True)
class LeaseObservation:
    """The last look at another worker's entry, and the time (by this worker's clock) since when no renewal was seen."""

    row: PendingEntry
    since: float
    by_server: bool = True  # the server's clock, too, may say that its lease is over


class Leases:
    """Not thread-safe: the loop's thread calls it. Every `now` is this worker's monotonic clock."""

    def __init__(self, queue: RequestQueue, journal: Journal, wid: str, *, lease_s: float, now: float) -> None:
        self._queue = queue
        self._journal = journal
        self._wid = wid
        self._lease_s = lease_s
        self.observations: dict[tuple[str, str, int], LeaseObservation] = {}
        self.renewed_at = now
        self._observed_at = now
        self._grace_until = now
        self._rescued_at = now
        self._rescued_to = ""  # a look through the queue has come as far as this entry

    # -- our own -------------------------------------------------------------------------------------------------

    def due(self, now: float) -> bool:
        """Whether it is time to renew what this worker holds."""
        return now - self.renewed_at >= self._lease_s / 3

    def renew(self, entries: Sequence[Entry]) -> list[bool]:
        """Renew the leases; for each entry, whether this worker still owns it. Call `renewed` when all is handled."""
        return self._queue.renew(entries, self._wid)

    def renewed(self, now: float) -> None:
        self.renewed_at = now

    def retire(self) -> None:
        """Let the queue forget this worker's name: it holds no entries."""
        self._queue.retire(self._wid)

    def disconnected(self, now: float) -> None:
        """Note that Redis failed. After an outage all leases look expired: their owners must be able to renew first."""
        self._grace_until = now + self._lease_s

    # -- those of others -----------------------------------------------------------------------------------------

    def free(self, mine: Container[str], now: float) -> None:
        """Put entries that have lost their lease back in line. `mine` is the entries that run here.

        It looks during the grace, too: an idle worker must notice how long an outage lasts, or its grace ends too soon.
        """
        self.observe([row for row in self._queue.pending() if row.owner != HANDBACK and row.entry_id not in mine], now)
        for row in self.expired(now):
            self._free(row)

    def observe(self, rows: Sequence[PendingEntry], now: float) -> None:
        """Look once at the entries of other workers."""
        pause_s, self._observed_at = now - self._observed_at, now
        self.observations = {row.key: self._look(self.observations.get(row.key), row, now, pause_s) for row in rows}

    def _look(self, before: LeaseObservation | None, row: PendingEntry, now: float, pause_s: float) -> LeaseObservation:
        """What a look at an entry says of its owner, `pause_s` after the look before.

        An owner renews every third of a lease: who looks less often does not see it. And an idle time that grew by
        more than the pause says nothing of the owner: Redis stood still, its clock stepped forward, or it lost a
        renewal with its tail. In both cases our clock alone counts, from now on.
        """
        blind = pause_s >= self._lease_s / 3
        renewed = before is None or row.idle_s < before.row.idle_s
        passed_s = 0.0 if before is None else row.idle_s if renewed else row.idle_s - before.row.idle_s
        if blind or passed_s > pause_s + self._lease_s / 4:
            return LeaseObservation(row, now, by_server=False)
        if before is None or renewed:
            return LeaseObservation(row, now)
        return LeaseObservation(row, before.since, before.by_server)

    def expired(self, now: float) -> list[PendingEntry]:
        """The entries whose lease has run out by the server's clock, which may step back, or by this worker's."""
        if now < self._grace_until:
            return []
        return [
            seen.row
            for seen in self.observations.values()
            if (seen.by_server and seen.row.idle_s >= self._lease_s) or now - seen.since >= self._lease_s
        ]

    def _free(self, row: PendingEntry) -> None:
        entry = self._queue.look(row)
        if entry is None or entry.version != VERSION:
            return
        head = self._journal.head(entry.rid) if NAME.fullmatch(entry.rid) else None
        suspect = head is not None and head.tries >= 1 and head.n == 0
        place = SUSPECT_PLACE if suspect else RETRY_PLACE
        if self._queue.hand_back(entry, row.owner, place, idle_s=row.idle_s):
            log.info("%s lost its lease (delivery %d)", row.owner, row.count, extra={"rid": entry.rid})

    # -- nobody's ------------------------------------------------------------------------------------------------

    def rescue(self, now: float) -> None:
        """Now and then: put entries that nobody holds and that do not wait back in line; forget workers long gone."""
        if not self._rescued_to and now - self._rescued_at < RESCUE_S:
            return
        self._rescued_at = now
        self._queue.retire_idle(FORGET_WORKER_S)
        rescued, self._rescued_to = self._queue.rescue(self._rescued_to)
        if rescued:
            log.warning("%d entries had no worker and no place in line; they are back in line", rescued)
