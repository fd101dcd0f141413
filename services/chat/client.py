"""The client of the CLI and of scripts: submit, follow until the end, cancel. It needs Redis and nothing else.

The web app follows many requests at once and so has a driver of its own, `webapp/chat/relay.py`, over the same
Follower.
"""

import time
from collections.abc import Callable, Iterator

from redis.exceptions import RedisError

from services.chat.follower import Follower
from services.chat.reader import ReaderEvent, Status
from services.chat.requests import Requests
from services.connection.subscription import Subscription
from services.errors import Unavailable
from services.wire.messages import ChatRequest, Event

OUTAGE_GRACE_S = 120.0
POSITION_INTERVAL_S = 1.0


class ChatClient(Requests):
    """Front-end access to one installation, one answer at a time."""

    def follow(
        self,
        rid: str,
        user: str,
        *,
        request: ChatRequest | None = None,
        on_outage: Callable[[str], None] = lambda text: None,
    ) -> Iterator[ReaderEvent]:
        """The answer, until Done. Raises Forbidden, or Unavailable after a long outage of Redis."""
        follower = Follower(self, rid, user, time.monotonic(), request=request)
        failing_since: float | None = None
        position_at = time.monotonic()
        live: Subscription | None = None
        try:
            while not follower.reader.done:
                try:
                    if live is None or live.closed:
                        live = Subscription.to(self._redis, self.keys.events(rid))
                    yield from self._step(live, follower)
                    if not follower.reader.running and time.monotonic() - position_at >= POSITION_INTERVAL_S:
                        position_at = time.monotonic()
                        yield from self._position(follower)
                    failing_since = None
                except RedisError as error:
                    if failing_since is None:
                        failing_since = time.monotonic()
                        on_outage(f"Redis does not answer ({error}); retrying")
                    if time.monotonic() - failing_since > OUTAGE_GRACE_S:
                        raise Unavailable(f"Redis has not answered for {OUTAGE_GRACE_S:.0f} s: {error}") from None
                    if live is not None:
                        live.close()
                    time.sleep(0.5)
        finally:
            if live is not None:
                live.close()

    def _step(self, live: Subscription, follower: Follower) -> Iterator[ReaderEvent]:
        """Wait a moment for a live event, then do what is due."""
        heard = live.hear(0.5)
        if heard is None:
            pass
        elif heard[0] == b"smessage":
            yield from follower.live(Event.decode(heard[2]), time.monotonic())
        elif heard[0] == b"ssubscribe":
            follower.reader.resubscribed()
        else:
            live.close()  # the channel lives elsewhere now
        if follower.due(time.monotonic()):
            yield from follower.poll(time.monotonic())

    def _position(self, follower: Follower) -> Iterator[ReaderEvent]:
        if not follower.model:
            return
        place = self.queue(follower.model).positions().get(follower.rid)
        if place is not None:
            yield Status("queued", *place)
