"""One model's work queue: a Redis stream with the consumer group `workers`.

Front ends enqueue and audit; workers take, reclaim, renew and acknowledge. The delivery count of an entry is the fence
between owners, never a reason to give a request up: `tries` in the request's state is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis
from redis.exceptions import NoScriptError, ResponseError

from services.errors import Busy, UserLimit
from services.protocol import GROUP, Keys
from services.scripts import Script

_ENQUEUE, _RECLAIM, _HOLD, _ACK = Script("enqueue"), Script("reclaim"), Script("hold"), Script("ack")
_JANITOR, _RETIRE = Script("janitor"), Script("retire")


@dataclass(frozen=True)
class Entry:
    """One delivery of one request. `epoch` grows with every delivery, also over a re-queue (`base`)."""

    entry_id: str
    rid: str
    user: str
    payload: bytes
    base: int
    count: int

    @property
    def epoch(self) -> int:
        return self.base + self.count


@dataclass(frozen=True)
class Pending:
    """One delivered entry as the server's pending list shows it."""

    entry_id: str
    owner: str
    idle_s: float
    count: int


def _entry(raw: Sequence[Any], count: int) -> Entry:
    """An entry as it is, also a malformed one: its worker files that under the dead letters."""
    fields = dict(zip(raw[1][::2], raw[1][1::2], strict=True))
    base = fields.get(b"base", b"0")
    return Entry(
        raw[0].decode(),
        fields.get(b"rid", b"").decode(errors="replace"),
        fields.get(b"user", b"").decode(errors="replace"),
        fields.get(b"payload", b""),
        int(base) if base.isdigit() and len(base) < 16 else 0,
        count,
    )


class RequestQueue:
    """The work queue of one model. Every method is one round trip; none retries."""

    def __init__(self, redis: Redis, keys: Keys, model: str) -> None:
        self._redis = redis
        self.model = model
        self._requests = keys.requests(model)
        self._ids, self._users, self._dead = keys.ids(model), keys.users(model), keys.dead(model)

    # -- front ends ----------------------------------------------------------------------------------------------

    def enqueue(
        self, rid: str, user: str, payload: bytes, *, base: int, force: bool, max_queue: int, max_user: int
    ) -> bool:
        """Queue a request; False when it is queued already. Raises Busy or UserLimit unless `force`."""
        keys = [self._requests, self._ids, self._users]
        reply = _ENQUEUE(self._redis, keys, rid, user, payload, base, int(force), max_queue, max_user)
        if reply[0] == b"FULL":
            raise Busy(f"{reply[1]} requests wait for {self.model}; try again later", retry_after_s=5)
        if reply[0] == b"USER":
            raise UserLimit(f"you have {reply[1]} requests in flight; wait for one to end", retry_after_s=5)
        return bool(reply[0] == b"OK")

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
        """Ids of the requests that no worker has taken yet, in order. From the index: payloads stay where they are."""
        last = self._last_delivered()
        ids = [(_stream_id(entry_id), rid.decode()) for rid, entry_id in self._redis.hgetall(self._ids).items()]
        return [rid for entry_id, rid in sorted(ids) if entry_id > last]

    def _last_delivered(self) -> tuple[int, int]:
        try:
            for group in self._redis.xinfo_groups(self._requests):
                if group["name"] == GROUP.encode():
                    return _stream_id(group["last-delivered-id"])
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
        return (0, 0)

    # -- workers -------------------------------------------------------------------------------------------------

    def take(self, wid: str, block_ms: int) -> Entry | None:
        """The next entry that nobody has had, waiting up to `block_ms` for one (0: not at all)."""
        wait = ["BLOCK", block_ms] if block_ms else []
        try:
            reply = self._redis.execute_command(
                "XREADGROUP", "GROUP", GROUP, wid, "COUNT", 1, *wait, "STREAMS", self._requests, ">"
            )
        except ResponseError as error:
            if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                raise
            self.make_group()
            return None
        if not reply:
            return None
        return _entry(_raw_pair(reply[0][1][0]), 1)

    def make_group(self) -> None:
        """The group starts at 0, so that whatever was queued before it is delivered."""
        try:
            self._redis.xgroup_create(self._requests, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def pending(self, owner: str | None = None, limit: int = 1000) -> list[Pending]:
        """Delivered entries, of one owner or of all."""
        try:
            rows = self._redis.xpending_range(self._requests, GROUP, "-", "+", limit, consumername=owner)
        except ResponseError as error:
            if str(error).startswith("NOGROUP"):
                return []
            raise
        return [
            Pending(
                row["message_id"].decode(),
                row["consumer"].decode(),
                row["time_since_delivered"] / 1000,
                row["times_delivered"],
            )
            for row in rows
        ]

    def rid_of(self, entry_id: str) -> str | None:
        """The request behind an entry; None when the entry is gone."""
        found = self._redis.execute_command("XRANGE", self._requests, entry_id, entry_id)
        return _entry(_raw_pair(found[0]), 0).rid if found else None

    def reclaim(self, seen: Pending, wid: str) -> Entry | None:
        """Take over an entry exactly as it was seen; None when somebody was faster."""
        reply = _RECLAIM(self._redis, [self._requests], seen.entry_id, seen.owner, seen.count, wid)
        return _entry(reply[2], reply[1]) if reply[0] == b"OK" else None

    def hold(self, entry: Entry, wid: str, action: Literal["renew", "raise", "handback"], new_count: int = 0) -> bool:
        """Renew, raise or hand back an entry; False when this worker does not own it any more."""
        keys = [self._requests]
        return bool(_HOLD(self._redis, keys, entry.entry_id, wid, entry.count, action, new_count)[0] == b"OK")

    def renew(self, entries: Sequence[Entry], wid: str) -> list[bool]:
        """Renew many entries in one round trip; for each, whether this worker still owns it.

        One `hold` after the other kept a worker with 1,000 requests from its tokens for a quarter of a second.
        """
        pipe = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipe.execute_command(*_HOLD.command([self._requests], (entry.entry_id, wid, entry.count, "renew", 0)))
        owned = []
        for entry, reply in zip(entries, pipe.execute(raise_on_error=False), strict=True):
            if isinstance(reply, NoScriptError):
                owned.append(self.hold(entry, wid, "renew"))
            elif isinstance(reply, Exception):
                raise reply
            else:
                owned.append(reply[0] == b"OK")
        return owned

    def ack(self, entry: Entry, reason: str = "") -> bool:
        """Forget an entry whose request has ended; a `reason` files it under the dead letters."""
        keys = [self._requests, self._ids, self._users, self._dead]
        return bool(_ACK(self._redis, keys, entry.entry_id, entry.rid, entry.user, reason)[1])

    def rescue(self, limit: int = 1000) -> int:
        """Hand back entries that were delivered to nobody; the number of them."""
        return int(_JANITOR(self._redis, [self._requests], limit))

    def retire(self, wid: str) -> bool:
        """Remove a consumer that holds nothing."""
        return bool(_RETIRE(self._redis, [self._requests], wid))


def _stream_id(raw: bytes) -> tuple[int, int]:
    """A stream id in the order of the stream."""
    milliseconds, sequence = raw.split(b"-")
    return int(milliseconds), int(sequence)


def _raw_pair(raw: Any) -> tuple[bytes, list[bytes]]:
    """redis-py parses stream entries into (id, dict); scripts return them flat. One shape for both."""
    entry_id, fields = raw
    if isinstance(fields, dict):
        fields = [item for pair in fields.items() for item in pair]
    return entry_id, fields
