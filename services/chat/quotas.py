"""Quotas: how many tokens a user may use in a day, how many requests at once, and the weight of the user's share.

A user's own limits stand before those of the user's group, and these before the defaults.

Front ends reserve when they queue a request (`services/chat/requests.py`). Nobody need be alive when the request ends:
whoever next reserves for the user, or looks at the usage, reads the ends from the states of the requests and puts what
was used in place of what was reserved, once. Without limits nothing is counted, and nothing is asked of Redis but, now
and then, which users have limits of their own.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from services.chat.charges import Tokens, estimate
from services.chat.scripts import script
from services.connection.connect import server_time
from services.errors import ChatServerError, InvalidRequest, QuotaExceeded, UserLimit
from services.settings import Settings
from services.wire.keys import Keys, check_name
from services.wire.limits import UserLimits, decode_limits, encode_limits, given_limits
from services.wire.messages import TERMINAL, ChatRequest

_RESERVE, _SETTLE = script("reserve"), script("settle")

TABLE_S = 5.0  # how old the limits of users may be that a submit goes by
SETTLE_AT_MS = 120_000  # a reservation that old is looked after: an ended request's state may go after ten minutes
SETTLE_EVERY = 32  # reservations: so they stay few
DAY_S = 86_400
AT_ONCE = 200  # requests whose states are read in one pipeline
_OF_STATE = ("status", "code", "epoch", "n", "used", "created_ms")


@dataclass(frozen=True)
class Usage:
    """What a user has used on this day of UTC, and what is reserved for requests in flight. Times in seconds."""

    limits: UserLimits
    used: int
    reserved: int
    in_flight: int
    resets_at: float

    def row(self) -> dict[str, Any]:
        """As programs and people see it; a limit that there is not is null."""
        limits = self.limits
        return {
            "tokens_used": self.used,
            "tokens_reserved": self.reserved,
            "tokens_per_day": limits.tokens_per_day or None,
            "requests_in_flight": self.in_flight,
            "most_in_flight": limits.in_flight or None,
            "weight": limits.weight,
            "counted": limits.counts,
            "resets_at": _moment(self.resets_at),
        }


@dataclass(frozen=True)
class Reservation:
    """What is reserved for a request: on which day, since when, how much, and by which submit."""

    day: int
    since_ms: int
    tokens: Tokens
    submit: int

    @classmethod
    def decode(cls, raw: bytes) -> "Reservation":
        day, since_ms, prompt, answer, submit = map(int, raw.split(b" "))
        return cls(day, since_ms, Tokens(prompt, answer), submit)

    @property
    def total(self) -> int:
        return self.tokens.prompt + self.tokens.answer

    def used(self, state: "StateOfRequest | None", now_ms: int, wait_ms: float) -> int | None:
        """The tokens that the request used; None while it may use more.

        A request whose state is lost is taken to have used all: it may have.
        """
        if state is None:
            return self.total
        if not state.ended:
            never_runs = state.epoch == 0 and now_ms - state.created_ms > wait_ms
            return 0 if never_runs else None
        if state.used is not None:
            return state.used
        return self.tokens.prompt + state.n if state.epoch and state.code != "expired" else 0


@dataclass(frozen=True)
class StateOfRequest:
    """What the state of a request says of its end. Without `used`, no worker counted."""

    ended: bool
    code: str
    epoch: int
    n: int
    used: int | None
    created_ms: int

    @classmethod
    def decode(cls, values: Iterable[bytes | None]) -> "StateOfRequest | None":
        status, code, epoch, n, used, created_ms = values
        if status is None:
            return None
        counted = None if used is None else int(used)
        ended = status.decode() in TERMINAL
        return cls(ended, (code or b"").decode(), int(epoch or 0), int(n or 0), counted, int(created_ms or 0))


class Quotas:
    """The limits of the users of one installation, and what they have used."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        default: UserLimits = UserLimits(),  # noqa: B008  # it is frozen
        wait_s: float = 900.0,
        table_s: float = TABLE_S,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._default = default
        self._wait_ms = wait_s * 1000
        self._table_s = table_s
        self._table: tuple[Mapping[bytes, bytes], ...] = ()  # user → limits, encoded: of groups, and users' own
        self._table_until = 0.0

    @classmethod
    def from_settings(cls, redis: Redis, settings: Settings) -> "Quotas":
        default = UserLimits(settings.user_tokens_per_day, settings.user_in_flight)
        return cls(redis, Keys(settings.namespace), default=default, wait_s=settings.queue_deadline_s)

    @property
    def default(self) -> UserLimits:
        """What applies to users without limits of their own."""
        return self._default

    # -- limits --------------------------------------------------------------------------------------------------

    def get(self, user: str) -> UserLimits:
        """The limits of a user: those that were set, else those of the user's group, else the defaults."""
        return self._of_group(user).under(self._own(user))

    def set(
        self, user: str, *, tokens_per_day: int | None = None, in_flight: int | None = None, weight: float | None = None
    ) -> UserLimits:
        """Give a user limits of its own; None leaves one as it is. Front ends heed them within five seconds."""
        check_name(user, "user")
        changes = given_limits(tokens_per_day=tokens_per_day, in_flight=in_flight, weight=weight)
        own = {**self._own(user), **changes}
        self._redis.hset(self._keys.limits, user, encode_limits(own))
        self._table_until = 0.0
        return self._of_group(user).under(own)

    def unset(self, user: str) -> bool:
        """Take a user's own limits away; False when there were none."""
        self._table_until = 0.0
        return bool(self._redis.hdel(self._keys.limits, user))

    def all(self) -> dict[str, UserLimits]:
        """The users with limits of their own."""
        of_groups, own = self._raw()
        return {user.decode(): self._merged(of_groups.get(user), raw) for user, raw in sorted(own.items())}

    def share_groups(self, of_members: Mapping[str, Mapping[str, Any]]) -> None:
        """Let everybody who queues a request know what the groups allow their members: user → the group's limits.

        Repeating it is harmless, and what several processes share at once becomes the same again.
        """
        self.share_encoded_groups(encode_members(of_members))

    def share_encoded_groups(self, wanted: Mapping[bytes, bytes]) -> None:
        """The same for what `encode_members` made: of many members, that takes a while."""
        shared: Mapping[bytes, bytes] = self._redis.hgetall(self._keys.group_limits)
        if gone := shared.keys() - wanted.keys():
            self._redis.hdel(self._keys.group_limits, *gone)
        if changed := {user: own for user, own in wanted.items() if shared.get(user) != own}:
            self._redis.hset(self._keys.group_limits, mapping=changed)

    def num_shared(self) -> int:
        """How many members Redis knows the group's limits of."""
        return int(self._redis.hlen(self._keys.group_limits))

    def heeded(self, user: str) -> UserLimits:
        """The limits of a user as this process goes by: read from Redis every few seconds, for all users at once."""
        now = time.monotonic()
        if now >= self._table_until or not self._table:
            self._table = self._raw()
            self._table_until = now + self._table_s
        of_groups, own = self._table
        return self._merged(of_groups.get(user.encode()), own.get(user.encode()))

    def _raw(self) -> tuple[Mapping[bytes, bytes], ...]:
        return self._redis.hgetall(self._keys.group_limits), self._redis.hgetall(self._keys.limits)

    def _merged(self, of_group: bytes | None, own: bytes | None) -> UserLimits:
        return self._default.under(decode_limits(of_group)).under(decode_limits(own))

    def _own(self, user: str) -> dict[str, Any]:
        return decode_limits(self._redis.hget(self._keys.limits, user))

    def _of_group(self, user: str) -> UserLimits:
        return self._default.under(decode_limits(self._redis.hget(self._keys.group_limits, user)))

    # -- usage ---------------------------------------------------------------------------------------------------

    def usage(self, user: str) -> Usage:
        """What the user has used today."""
        self.settle(user)
        limits, now = self.get(user), server_time(self._redis)
        day = int(now // DAY_S)
        used = self._redis.hget(self._keys.used(user), str(day))
        open_ones = self._reservations(user).values()
        reserved = sum(each.total for each in open_ones if each.day == day)
        return Usage(limits, int(used or 0), reserved, len(open_ones), float((day + 1) * DAY_S))

    def reserve(self, request: ChatRequest, submit: int, *, force: bool = False) -> UserLimits:
        """Reserve what the request may use, once; returns the limits of its user.

        Raises UserLimit, QuotaExceeded, or InvalidRequest for what no day has room for.
        """
        limits = self.heeded(request.user)
        if not limits.counts:
            return limits
        reply = self._reserve(request, submit, limits, force)
        if reply[0] == b"OK":
            if reply[1] % SETTLE_EVERY == 0 or reply[2] > SETTLE_AT_MS:
                self.settle(request.user)
            return limits
        if self.settle(request.user):
            reply = self._reserve(request, submit, limits, force)
        if reply[0] != b"OK":
            raise _refusal(estimate(request), limits, *reply)
        return limits

    def _reserve(self, request: ChatRequest, submit: int, limits: UserLimits, force: bool) -> list[Any]:
        wanted = estimate(request)
        about = (request.rid, wanted.prompt, wanted.answer, submit)
        bounds = (limits.tokens_per_day, limits.in_flight, int(force))
        found: list[Any] = _RESERVE(self._redis, self._slot(request.user), *about, *bounds)
        return found

    def release(self, request: ChatRequest, submit: int) -> None:
        """Give back what a submit reserved that was refused, unless the request was submitted again meanwhile."""
        if self.heeded(request.user).counts:
            _SETTLE(self._redis, self._slot(request.user), request.rid, 0, submit)

    def look(self, user: str) -> None:
        """Settle what has ended now, if anything of the user is counted: its state may go soon."""
        if self.heeded(user).counts:
            self.settle(user)

    def settle(self, user: str) -> int:
        """Put what ended requests used in place of what was reserved for them; how many there were."""
        rows = list(self._reservations(user).items())
        now_ms = int(server_time(self._redis) * 1000) if rows else 0
        settled = 0
        for start in range(0, len(rows), AT_ONCE):
            settled += self._settle(user, rows[start : start + AT_ONCE], now_ms)
        return settled

    def _settle(self, user: str, rows: list[tuple[str, Reservation]], now_ms: int) -> int:
        pipe = self._redis.pipeline(transaction=False)
        for rid, _ in rows:
            pipe.execute_command("HMGET", self._keys.state(rid), *_OF_STATE)
        replies = pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        known = zip(rows, map(StateOfRequest.decode, replies), strict=True)
        found = [(rid, each.used(state, now_ms, self._wait_ms), each.submit) for (rid, each), state in known]
        ended = [word for rid, used, submit in found if used is not None for word in (rid, used, submit)]
        return int(_SETTLE(self._redis, self._slot(user), *ended)) if ended else 0

    def _reservations(self, user: str) -> dict[str, Reservation]:
        found: Mapping[bytes, bytes] = self._redis.hgetall(self._keys.reserved(user))
        return {rid.decode(): Reservation.decode(raw) for rid, raw in found.items()}

    def _slot(self, user: str) -> list[str]:
        return [self._keys.used(user), self._keys.reserved(user)]


def encode_members(of_members: Mapping[str, Mapping[str, Any]]) -> dict[bytes, bytes]:
    """What groups allow their members, as Redis has it."""
    return {user.encode(): encode_limits(own) for user, own in of_members.items()}


def _refusal(wanted: Tokens, limits: UserLimits, why: bytes, *numbers: int) -> ChatServerError:
    """Why a user may not ask this now, and when to try again."""
    if why == b"IN_FLIGHT":
        return UserLimit(f"you have {numbers[0]} requests in flight; wait for one to end", retry_after_s=5)
    used, reserved, rest_s, resets_at = numbers
    most, total = limits.tokens_per_day, wanted.prompt + wanted.answer
    if total > most:
        return InvalidRequest(
            f"this request may use {total:,} tokens, and you may use {most:,} a day; ask for a shorter answer"
        )
    if used + total <= most:
        return QuotaExceeded(
            f"of your {most:,} tokens a day {used:,} are used and {reserved:,} reserved by requests in flight, and "
            f"this request may use {total:,}; wait for one to end",
            retry_after_s=5,
        )
    return QuotaExceeded(
        f"of your {most:,} tokens a day {used:,} are used, and this request may use {total:,}; the next day begins at "
        f"{_moment(resets_at)}",
        retry_after_s=rest_s,
    )


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(round(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
