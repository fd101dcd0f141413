"""One model's work queue: a Redis stream with the consumer group `workers`, and the line in which its entries wait.

Front ends enqueue, withdraw and audit; workers take, renew, hand back and acknowledge. A worker decides who is next
when it takes an entry, not when a request comes: users share by tokens, and requests that ran before go first. The
delivery count of an entry is the fence between owners. It is never a reason to give a request up: `tries` in its state
is.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from redis import Redis
from redis.exceptions import NoScriptError, ResponseError

from services.chat.charges import Tokens
from services.chat.scripts import script
from services.connection.connect import server_time
from services.connection.memory import FULL_PERCENT, full_memory
from services.errors import Busy, UserLimit
from services.settings import Settings
from services.wire.keys import GROUP, HANDBACK, VERSION, Keys
from services.wire.messages import Priority

log = logging.getLogger("chatserver.queue")

_ENQUEUE, _TAKE, _HOLD, _ACK = script("enqueue"), script("take"), script("hold"), script("ack")
_WITHDRAW, _JANITOR, _RETIRE = script("withdraw"), script("janitor"), script("retire")

PAGE = 1000  # rows of the pending list in one reply
MOST_RETRY_S = 120.0
SUSPECT_PLACE, RETRY_PLACE, BATCH_PLACE = -2.0, -1.0, 1e12  # in line, as _queue.lua gives them


@dataclass(frozen=True)
class Limits:
    """What a queue admits. The numbers of requests and of payload bytes include those that run.

    The last fifth of the places is for users who have nothing in the queue. A user's only request, and the only one of
    a queue, may be larger than its budget.
    """

    requests: int = 1000
    user_requests: int = 64
    address_requests: int = 256
    total_bytes: int = 256 * 2**20
    user_bytes: int = 16 * 2**20
    wait_s: float = 900.0

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            requests=settings.max_queue,
            user_requests=settings.max_user_requests,
            address_requests=settings.max_address_requests,
            total_bytes=settings.max_queue_mib * 2**20,
            user_bytes=settings.max_user_mib * 2**20,
            wait_s=settings.queue_deadline_s,
        )


@dataclass(frozen=True)
class Entry:
    """One delivery of one request. `epoch` grows with every delivery, also over a re-queue (`base`).

    `place` is the entry's place in line when the worker took it. `waited_s` is the time from its first queueing to
    then.
    """

    entry_id: str
    rid: str
    user: str
    payload: bytes
    base: int
    count: int
    version: int = VERSION
    place: float = RETRY_PLACE
    waited_s: float = 0.0

    @property
    def epoch(self) -> int:
        return self.base + self.count


@dataclass(frozen=True)
class PendingEntry:
    """One delivered entry, as the server's pending list shows it."""

    entry_id: str
    owner: str
    idle_s: float
    count: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What identifies the delivery: a renewal changes only the idle time."""
        return self.entry_id, self.owner, self.count


@dataclass(frozen=True)
class WaitingClass:
    """The requests of one class that no worker has. `oldest_s`: how long ago the oldest of them was first queued."""

    number: int = 0
    oldest_s: float = 0.0


def _entry(raw: Sequence[Any], count: int, place: float = RETRY_PLACE, now_ms: int = 0) -> Entry:
    """The entry, even a malformed one: the worker that takes it makes it a dead letter."""
    fields = dict(zip(raw[1][::2], raw[1][1::2], strict=True))
    entry_id = raw[0].decode()
    return Entry(
        entry_id,
        fields.get(b"rid", b"").decode(errors="replace"),
        fields.get(b"user", b"").decode(errors="replace"),
        fields.get(b"payload", b""),
        _number(fields.get(b"base"), 0),
        count,
        _number(fields.get(b"v"), VERSION),
        place,
        max(now_ms - int(entry_id.partition("-")[0]), 0) / 1000,
    )


def _number(raw: bytes | None, default: int) -> int:
    return int(raw) if raw and raw.isdigit() and len(raw) < 16 else default


class RequestQueue:
    """The work queue of one model. Every change is one command; none retries."""

    def __init__(self, redis: Redis, keys: Keys, model: str) -> None:
        self._redis = redis
        self.model = model
        self._requests, self._waiting, self._pace = keys.requests(model), keys.waiting(model), keys.pace(model)
        self._ids, self._users, self._dead = keys.ids(model), keys.users(model), keys.dead(model)
        self._bytes, self._control = keys.bytes(model), keys.control
        # In the order of _queue.lua; a script is given as many as it needs.
        line = [self._requests, self._waiting, keys.turns(model), self._pace]
        self._keys = [*line, self._ids, self._users, self._bytes, self._dead]

    # -- front ends ----------------------------------------------------------------------------------------------

    def enqueue(
        self,
        rid: str,
        user: str,
        payload: bytes,
        *,
        priority: Priority = "interactive",
        base: int = 0,
        address: str = "",
        limits: Limits | None = None,
        expected: Tokens = Tokens(),  # noqa: B008  # it is frozen
        weight: float = 1.0,
    ) -> bool:
        """Queue a request; False when the queue has it already. Without `limits` none refuses it.

        `address` is where its user asks, if strangers share that. A user of `weight` 2 gets twice the tokens of others.
        Raises Busy or UserLimit.
        """
        bounds = limits or Limits()
        about = (rid, user, payload, base, int(limits is None), priority, self._control, self.model, address)
        numbers = (
            bounds.requests,
            bounds.user_requests,
            bounds.address_requests,
            bounds.total_bytes,
            bounds.user_bytes,
        )
        charge = (expected.prompt, expected.answer, weight)
        reply = _ENQUEUE(self._redis, self._keys, *about, *numbers, int(bounds.wait_s * 1000), FULL_PERCENT, *charge)
        if reply[0] not in (b"OK", b"DUP"):
            raise self._refusal(reply[0].decode(), int(reply[1]) if len(reply) > 1 else 0, bounds)
        return bool(reply[0] == b"OK")

    def _refusal(self, why: str, number: int, limits: Limits) -> Busy:
        """Why the queue refused a request, with when to try again."""
        if why == "USER":
            return UserLimit(f"you have {number} requests in flight; wait for one to end", retry_after_s=5)
        if why == "USER_BYTES":
            allowed = f"{limits.user_bytes / 2**20:.0f} MiB"
            return UserLimit(f"your requests in flight hold {allowed} of text; wait for one to end", retry_after_s=5)
        if why == "ADDRESS":
            return UserLimit(f"{number} requests of your address are in flight; wait for one to end", retry_after_s=5)
        if why == "MEMORY":
            return full_memory(number)
        if why == "LATE":
            wait_s = number / 1000
            return Busy(
                f"the wait for model {self.model} would be about {wait_s / 60:.0f} min, and no request may wait longer "
                f"than {limits.wait_s / 60:.0f} min; try again later",
                retry_after_s=min(max(wait_s - limits.wait_s, 5), MOST_RETRY_S),
            )
        what = f"{number} requests" if why == "FULL" else f"{limits.total_bytes / 2**20:.0f} MiB of text"
        return Busy(f"{what} wait for model {self.model}; try again later", retry_after_s=5)

    def withdraw(self, rid: str, user: str, reason: str = "") -> bool:
        """Forget a request that ended while it waited; False when a worker owns it: that worker forgets it."""
        return bool(_WITHDRAW(self._redis, self._keys, rid, user, reason))

    def holds(self, rid: str) -> bool:
        """Whether the request is in the queue, waiting or running."""
        return bool(self._redis.hexists(self._ids, rid))

    def length(self) -> int:
        """Requests in flight, waiting and running."""
        return int(self._redis.xlen(self._requests))

    def dead_length(self) -> int:
        return int(self._redis.xlen(self._dead))

    def in_flight(self) -> list[str]:
        """Ids of the requests in the queue, waiting and running."""
        return [rid.decode() for rid in self._redis.hkeys(self._ids)]

    def waiting(self) -> list[str]:
        """Ids of the requests that no worker has, the next one first."""
        return [name.split(b" ")[1].decode() for name in self._redis.zrange(self._waiting, 0, -1)]

    def num_waiting(self) -> int:
        return int(self._redis.zcard(self._waiting))

    def classes(self) -> dict[str, WaitingClass]:
        """What waits in each class, in the order in which workers take them: `retried` ran before."""
        now_s, ages_s = server_time(self._redis), dict[str, list[float]](retried=[], interactive=[], batch=[])
        for name, place in self._redis.zrange(self._waiting, 0, -1, withscores=True):
            ages_s[_class_of(place)].append(max(now_s - int(name.partition(b"-")[0]) / 1000, 0.0))
        return {each: WaitingClass(len(found), max(found, default=0.0)) for each, found in ages_s.items()}

    def positions(self) -> dict[str, tuple[int, int | None]]:
        """For each request that no worker has: how many are ahead, and in how many seconds it is taken, if known."""
        waiting, pace_s = self.waiting(), self.pace_s()
        return {rid: (n, None if pace_s is None else round((n + 1) * pace_s)) for n, rid in enumerate(waiting)}

    def pace_s(self) -> float | None:
        """Seconds from one take to the next while requests wait; None when none has waited in the last hour.

        The number grows while no worker takes: the workers may have gone.
        """
        served, span_ms, since_ms = self._redis.hmget(self._pace, "served", "span_ms", "since_ms")
        if not served:
            return None
        waited_s = server_time(self._redis) - float(since_ms) / 1000 if since_ms else 0.0
        return max(float(span_ms) / float(served) / 1000, waited_s)

    # -- workers -------------------------------------------------------------------------------------------------

    def take(self, wid: str, *, suspects: bool) -> Entry | None:
        """Become the owner of the first entry in line; None when no entry waits.

        With `suspects`, that may be a request whose last worker died before its first token.
        """
        reply = _TAKE(self._redis, self._keys[:4], wid, int(suspects))
        return _entry(_raw_pair(reply[2]), int(reply[0]), float(reply[1]), int(reply[3])) if reply else None

    def pending(self, owner: str | None = None) -> list[PendingEntry]:
        """The delivered entries of one owner, or of all owners."""
        rows: list[dict[str, Any]] = []
        try:
            while not rows or len(rows) % PAGE == 0:
                first = b"(" + rows[-1]["message_id"] if rows else "-"
                page = self._redis.xpending_range(self._requests, GROUP, first, "+", PAGE, consumername=owner)
                rows += page
                if not page:
                    break
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        return [
            PendingEntry(
                row["message_id"].decode(),
                row["consumer"].decode(),
                row["time_since_delivered"] / 1000,
                row["times_delivered"],
            )
            for row in rows
        ]

    def look(self, seen: PendingEntry) -> Entry | None:
        """The entry of a row of the pending list; None when the entry is gone."""
        found = self._redis.execute_command("XRANGE", self._requests, seen.entry_id, seen.entry_id)
        return _entry(_raw_pair(found[0]), seen.count) if found else None

    def hold(self, entry: Entry, wid: str, action: Literal["renew", "raise"], new_count: int = 0) -> bool:
        """Renew the lease of an entry or raise its count; False when this worker no longer owns the entry."""
        return bool(_HOLD(self._redis, self._keys[:2], *_holding(entry, wid), action, new_count)[0] == b"OK")

    def hand_back(self, entry: Entry, owner: str, place: float, *, idle_s: float = 0.0) -> bool:
        """Take an entry from its owner and put it back in line. The entry keeps its id and count.

        Its owner calls this, or any worker that saw the entry idle for `idle_s` after its lease ran out. False when
        the entry was renewed, handed back or taken since.
        """
        arguments = ("handback", place, entry.rid, int(idle_s * 1000), self._control, self.model, entry.user)
        return bool(_HOLD(self._redis, self._keys[:4], *_holding(entry, owner), *arguments)[0] == b"OK")

    def renew(self, entries: Sequence[Entry], wid: str) -> list[bool]:
        """Renew many entries in one round trip; for each, whether this worker still owns it.

        With one `hold` after the other, a worker with 1,000 requests wrote no token for a quarter of a second.
        """
        pipe = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipe.execute_command(*_HOLD.command(self._keys[:2], (*_holding(entry, wid), "renew", 0)))
        owned = []
        for entry, reply in zip(entries, pipe.execute(raise_on_error=False), strict=True):
            if isinstance(reply, NoScriptError):
                owned.append(self.hold(entry, wid, "renew"))
            elif isinstance(reply, Exception):
                raise reply
            else:
                owned.append(reply[0] == b"OK")
        return owned

    def ack(self, entry: Entry, reason: str = "", used: Tokens | None = None) -> bool:
        """Forget an entry whose request has ended. With a `reason`, keep it as a dead letter.

        Its user is charged what it `used`; None: nobody knows, and what was expected stands.
        """
        charge = ("", "") if used is None else (used.prompt, used.answer)
        return bool(_ACK(self._redis, self._keys, entry.entry_id, entry.rid, entry.user, reason, *charge))

    def rescue(self, after: str = "", limit: int = 20) -> tuple[int, str]:
        """Put entries that no worker holds and that do not wait back in line.

        Looks at `limit` entries after `after`. Returns how many it rescued, and the entry after which to go on, if any.
        """
        wake = (self._control, self.model)
        rescued, last = _JANITOR(self._redis, self._keys[:4], after, limit, *wake)
        return int(rescued), last.decode()

    def retire_idle(self, idle_s: float) -> int:
        """Remove the consumers that hold nothing and did nothing for this long: their workers were killed.

        One that lives is made again by its next take.
        """
        try:
            found = self._redis.xinfo_consumers(self._requests, GROUP)
        except ResponseError as error:  # no queue yet, or no group
            log.debug("consumers of %s: %s", self.model, error)
            return 0
        names = [row["name"].decode() for row in found if not row["pending"] and row["idle"] >= idle_s * 1000]
        return sum(self.retire(name) for name in names if name != HANDBACK)

    def retire(self, wid: str) -> bool:
        """Remove a consumer that holds nothing."""
        return bool(_RETIRE(self._redis, [self._requests], wid))


def _class_of(place: float) -> str:
    if place <= RETRY_PLACE:
        return "retried"
    return "batch" if place >= BATCH_PLACE else "interactive"


def _holding(entry: Entry, owner: str) -> tuple[str, str, int]:
    return entry.entry_id, owner, entry.count


def _raw_pair(raw: Any) -> tuple[bytes, list[bytes]]:
    """One shape for two: redis-py parses stream entries into (id, dict), scripts return them flat."""
    entry_id, fields = raw
    if isinstance(fields, dict):
        fields = [item for pair in fields.items() for item in pair]
    return entry_id, fields
