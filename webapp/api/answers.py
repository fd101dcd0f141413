"""The answers to one HTTP request, one for each choice: submitted together, followed together, given up together."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Literal

from redis.exceptions import RedisError

from services.chat.feed import AnswerFeed
from services.chat.follower import Follower
from services.chat.reader import Done, ReaderEvent
from services.chat.requests import Requests
from services.errors import ChatServerError, Unavailable
from services.wire.messages import ChatRequest

log = logging.getLogger("chatserver.web")

OUTAGE_GRACE_S = 120.0
TICK_S = 0.5  # between two looks of the caller at its client
SLICE_CHARS = 16_384  # of one event
# At once in this process: each holds a connection to Redis, and when a thousand readers leave together (a proxy
# restarts), those that submit need some of the pool's too.
_CANCELS = threading.Semaphore(8)

Tick = Literal["tick"]


class Answers:
    """`events` tells what all choices say, as it comes. Nothing is followed any more after `close`.

    `outlives_reader`: whether the answers go on when their reader leaves.
    """

    def __init__(
        self,
        feed: AnswerFeed,
        requests: Requests,
        orders: list[ChatRequest],
        *,
        address: str,
        interval_s: float,
        outlives_reader: bool,
    ) -> None:
        self._feed = feed
        self._requests = requests
        self._orders = orders
        self._interval_s = interval_s
        self._outlives_reader = outlives_reader
        self._changed = threading.Event()
        self._submitted: list[ChatRequest] = []
        self._followers: list[Follower] = []
        try:
            self._submit(address)
        except BaseException:
            self.close()
            raise

    @property
    def waiting(self) -> list[Follower]:
        """Those that have not ended."""
        return [follower for follower in self._followers if not follower.done]

    def events(self) -> Iterator[tuple[int, ReaderEvent] | Tick]:
        """(choice, what it says), until each has ended, and twice a second a tick.

        Text that comes together is told together. Raises Unavailable after a long outage of Redis.
        """
        told_at, ticked_at = 0.0, time.monotonic()
        while self.waiting:
            is_new = self._changed.wait(TICK_S)
            if time.monotonic() - ticked_at >= TICK_S:
                ticked_at = time.monotonic()
                self._check_outage()
                yield "tick"
            if not is_new:
                continue
            time.sleep(max(0.0, told_at + self._interval_s - time.monotonic()))
            self._changed.clear()
            told_at = time.monotonic()
            for choice, follower in enumerate(self._followers):
                while (event := follower.next(follower.offset + SLICE_CHARS)) is not None:
                    if isinstance(event, Done):
                        log.info("delivered", extra={"rid": follower.rid, **follower.account(event)})
                    yield choice, event

    def close(self) -> None:
        """Leave the answers, and cancel those that have not ended: nobody else reads them."""
        ended = {follower.rid for follower in self._followers if follower.done or follower.has_end}
        for follower in self._followers:
            self._feed.leave(follower)
        submitted, self._submitted, self._followers = self._submitted, [], []
        if not self._outlives_reader:
            self._cancel(order for order in submitted if order.rid not in ended)

    def _submit(self, address: str) -> None:
        for order in self._orders:
            self._submitted.append(order)  # before it is known: a lost reply may be that of one that was accepted
            self._requests.submit(order, address)
            log.info("submitted", extra={"rid": order.rid, "model": order.model, "user": order.user})
            self._followers.append(self._feed.follow(order.rid, order.user, self._changed.set, request=order))

    def _cancel(self, orders: Iterable[ChatRequest]) -> None:
        for order in orders:
            # Nothing of it may be there, or Redis is away: then it just goes on.
            with _CANCELS, suppress(ChatServerError, RedisError):
                self._requests.cancel(order.rid, order.user)

    def _check_outage(self) -> None:
        for follower in self.waiting:
            outage = follower.outage
            if outage is not None and time.monotonic() - outage.since > OUTAGE_GRACE_S:
                raise Unavailable(f"Redis has not answered for {OUTAGE_GRACE_S:.0f} s: {outage.reason}")
