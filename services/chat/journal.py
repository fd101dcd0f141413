"""The answers: for each request a state hash and a stream of events. Only scripts change them.

A worker begins an answer under a fresh nonce, appends and finishes. The scripts refuse every write of a former owner
as LOST. Front ends create, cancel and read. Followers call `head` and `read`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from redis import Redis

from services.chat.scripts import script
from services.connection.memory import FULL_PERCENT, full_memory
from services.errors import Conflict, Forbidden, Gone
from services.wire.keys import Keys
from services.wire.messages import TERMINAL, ChatRequest, Event

_CREATE, _BEGIN, _APPEND, _FINISH = script("create"), script("begin"), script("append"), script("finish")
_BEAT, _CANCEL, _HANDBACK, _DISCARD = script("beat"), script("cancel"), script("handback"), script("discard")
_KEEP, _FORGET = script("keep"), script("forget")


@dataclass(frozen=True)
class Head:
    """How far an answer is, from its state. `n` counts tokens, `toff` code points.

    Times are in milliseconds by the server's clock; 0 means that it has not happened.
    """

    status: str
    user: str
    model: str
    nonce: str
    n: int
    toff: int
    epoch: int
    tries: int
    begins: int
    wid: str
    code: str
    payload: bytes
    created_ms: int
    begun_ms: int
    first_ms: int
    ended_ms: int
    now_ms: int = field(default=0, compare=False)  # when this was read; no field of the state

    @property
    def age_s(self) -> float:
        """Seconds since a front end accepted the request."""
        return max(self.now_ms - self.created_ms, 0) / 1000

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL


_OF_STATE = {each.name: each.type for each in fields(Head) if each.name != "now_ms"}
_SMALL = [name for name in _OF_STATE if name != "payload"]
_HEAD, _GLANCE = script("head", FIELDS=list(_OF_STATE)), script("head", FIELDS=_SMALL)


@dataclass(frozen=True)
class Created:
    """What `create` found or made. `submit`: the number of this submit, unlike that of any other of its request."""

    status: str
    epoch: int
    submit: int


@dataclass(frozen=True)
class Ownership:
    """A worker owns the answer under a nonce. `events` is the journal to continue from: `n` tokens, `toff` code points.

    `payload` is the first request under this id: a request submitted twice is answered once.
    """

    nonce: str
    n: int
    toff: int
    tries: int
    payload: bytes
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Refusal:
    """Why a write was refused: ENDED (status, code), STALE (epoch), FOREIGN, LOST, GONE or NEED (offset)."""

    why: str
    status: str = ""
    code: str = ""
    number: int = 0


def _refusal(reply: list[Any]) -> Refusal:
    why = reply[0].decode()
    if why == "ENDED":
        return Refusal(why, reply[1].decode(), reply[2].decode() if len(reply) > 2 else "")
    return Refusal(why, number=int(reply[1]) if len(reply) > 1 else 0)


def _head(now_ms: bytes, values: list[bytes | None], names: Iterable[str] = _OF_STATE) -> Head:
    found = {**dict.fromkeys(_OF_STATE, b""), **dict(zip(names, values, strict=True))}
    return Head(**{name: _decoded(_OF_STATE[name], value or b"") for name, value in found.items()}, now_ms=int(now_ms))


def _gone(rid: str) -> Gone:
    return Gone(f"request {rid} is unknown or has expired")


def _decoded(kind: object, value: bytes) -> Any:
    if kind is int:
        return int(value or 0)
    return value if kind is bytes else value.decode()


class Journal:
    """All answers of one installation. Every method is one command; none retries."""

    def __init__(self, redis: Redis, keys: Keys, *, ttl_s: int = 86_400) -> None:
        self._redis = redis
        self._keys = keys
        self._ttl_s = ttl_s

    def _slot(self, rid: str) -> list[str]:
        return [self._keys.state(rid), self._keys.journal(rid)]

    # -- front ends ----------------------------------------------------------------------------------------------

    def create(self, request: ChatRequest, *, redrive_of: str = "", note: bytes = b"", verdict: str = "") -> Created:
        """Make the state of a request, once. Raises Conflict for another user's id, and Busy.

        `note` is what a front end wants to know of the request as long as its answer is kept; `verdict`, why the
        moderation flagged it.
        """
        reply = _CREATE(
            self._redis,
            self._slot(request.rid),
            self._keys.events(request.rid),
            request.rid,
            request.user,
            request.model,
            request.encode(),
            self._ttl_s,
            redrive_of,
            FULL_PERCENT,
            note,
            verdict,
        )
        if reply[0] == b"MEMORY":
            raise full_memory(int(reply[1]))
        if reply[0] == b"CONFLICT":
            raise Conflict(f"another user or model uses the request id {request.rid}; choose another id")
        return Created(reply[1].decode(), *map(int, reply[2:]))

    def discard(self, rid: str, created: Created) -> None:
        """Forget a request that the queue refused, unless it was submitted again meanwhile."""
        _DISCARD(self._redis, self._slot(rid), self._keys.events(rid), created.submit)

    def cancel(self, rid: str, user: str) -> tuple[str, str]:
        """End a request at any stage; returns its final status and its model. Raises Gone or Forbidden."""
        ended = self._end(rid, user, "cancelled", "cancelled", "")
        assert ended is not None, "only a request with a deadline can be too early"
        return ended

    def give_up(self, rid: str, user: str, code: str, message: str) -> None:
        """End a request that no worker can read as failed. Raises Gone or Forbidden."""
        self._end(rid, user, "failed", code, message)

    def expire(self, rid: str, user: str, deadline_s: float) -> bool:
        """End a request as `expired` if no worker has begun it in this time. Raises Gone or Forbidden."""
        why = f"no worker had room for the request in {deadline_s:.0f} s"
        return self._end(rid, user, "failed", "expired", why, int(deadline_s * 1000)) is not None

    def _end(
        self, rid: str, user: str, status: str, code: str, message: str, deadline_ms: int | str = ""
    ) -> tuple[str, str] | None:
        """The final status and the model; None before the deadline."""
        arguments = (user, self._ttl_s, status, code, message, deadline_ms)
        reply = _CANCEL(self._redis, self._slot(rid), self._keys.events(rid), *arguments)
        if reply[0] == b"GONE":
            raise _gone(rid)
        if reply[0] == b"FORBIDDEN":
            raise Forbidden(f"request {rid} belongs to another user")
        if reply[0] == b"EARLY":
            return None
        return (status if reply[0] == b"OK" else reply[2].decode()), reply[1].decode()

    def head(self, rid: str) -> Head | None:
        """How far the answer is; None when the request is unknown."""
        reply = _HEAD(self._redis, self._slot(rid), 0)
        return _head(*reply[:2]) if reply else None

    def glance(self, rid: str) -> Head | None:
        """The head without its payload, which may be large: for whoever looks at many requests."""
        reply = _GLANCE(self._redis, self._slot(rid), 0)
        return _head(reply[0], reply[1], _SMALL) if reply else None

    def read(self, rid: str) -> tuple[Head, tuple[Event, ...]] | None:
        """The head and the whole journal at one moment; None when the request is unknown."""
        reply = _HEAD(self._redis, self._slot(rid), 1)
        return (_head(*reply[:2]), tuple(map(Event.decode, reply[2]))) if reply else None

    def note(self, rid: str, user: str) -> bytes:
        """What the front end noted of a user's request; empty if there is no such request, or no note."""
        owner, note = self._redis.hmget(self._keys.state(rid), "user", "note")
        return note if note and owner == user.encode() else b""

    def verdict(self, rid: str) -> str:
        """Why the moderation flagged a request; empty if it did not."""
        return str((self._redis.hget(self._keys.state(rid), "verdict") or b"").decode())

    def keep(self, rid: str) -> None:
        """Keep an ended answer as long as one that ends now."""
        _KEEP(self._redis, self._slot(rid), self._keys.events(rid), self._ttl_s)

    def forget(self, rid: str, user: str) -> bool:
        """Take text and note of an ended answer away; False while it has not ended. Raises Gone or Forbidden."""
        reply = _FORGET(self._redis, self._slot(rid), self._keys.events(rid), user)
        if reply[0] == b"GONE":
            raise _gone(rid)
        if reply[0] == b"FORBIDDEN":
            raise Forbidden(f"request {rid} belongs to another user")
        return bool(reply[0] == b"OK")

    # -- workers -------------------------------------------------------------------------------------------------

    def begin(
        self,
        request: ChatRequest,
        payload: bytes,
        *,
        epoch: int,
        nonce: str,
        wid: str,
        max_tries: int,
        max_begins: int,
        deadline_ms: int,
    ) -> Ownership | Refusal:
        """Become the owner of an answer under a fresh nonce."""
        reply = _BEGIN(
            self._redis,
            self._slot(request.rid),
            self._keys.events(request.rid),
            epoch,
            nonce,
            wid,
            request.rid,
            request.user,
            request.model,
            payload,
            max_tries,
            max_begins,
            self._ttl_s,
            deadline_ms,
        )
        if reply[0] != b"OK":
            return _refusal(reply)
        n, toff, tries = map(int, reply[1:4])
        return Ownership(nonce, n, toff, tries, reply[4], tuple(map(Event.decode, reply[5:])))

    def append_command(self, rid: str, epoch: int, event: Event) -> tuple[Any, ...]:
        """The command that appends and publishes one `tokens` event, for a pipeline; `appended` reads its reply."""
        end = event.toff + len(event.text)
        return _APPEND.command(
            self._slot(rid),
            (self._keys.events(rid), event.nonce, epoch, event.off, len(event.ids), end, event.encode()),
        )

    def load_append(self) -> None:
        """Load the append script into the server (after NoScriptError in a pipeline)."""
        _APPEND.load(self._redis)

    @staticmethod
    def appended(reply: list[Any]) -> int | Refusal:
        """The number of tokens in the journal now, or why the append was refused."""
        return int(reply[1]) if reply[0] == b"OK" else _refusal(reply)

    def finish(self, rid: str, epoch: int, event: Event) -> Refusal | None:
        """End the answer as its owner; None when done, else why the script refused."""
        reply = _FINISH(
            self._redis,
            self._slot(rid),
            self._keys.events(rid),
            event.nonce,
            epoch,
            event.off,
            event.kind,
            event.code,
            event.encode(),
            self._ttl_s,
        )
        return None if reply[0] == b"OK" else _refusal(reply)

    def keep_alive(self, rid: str, nonce: str) -> Refusal | None:
        """Tell readers that the worker lives; None when it still owns the answer."""
        reply = _BEAT(self._redis, self._slot(rid), self._keys.events(rid), nonce)
        return None if reply[0] == b"OK" else _refusal(reply)

    def hand_back(self, rid: str, nonce: str) -> Refusal | None:
        """Give the answer back, so that the next worker's begin does not count as a try."""
        reply = _HANDBACK(self._redis, self._slot(rid), self._keys.events(rid), nonce)
        return None if reply[0] == b"OK" else _refusal(reply)
