"""Live events: one connection to the server that owns their channels. Used by the feed (`services/chat/feed.py`).

The channels of answers are sharded: a cluster sends an event to one node only. A single server knows such channels too.
Another node can become a channel's owner. When a subscription is lost, or hears `sunsubscribe`, its user makes a new
one at the present owner and reads the journal again.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

import redis

from services.connection.cluster import Cluster, owner_of

HEALTH_CHECK_S = 15.0  # of silence; then the server is asked
ANSWER_S = 3.0


class Subscription:
    """Channels of one server. One thread hears; other threads may add and remove channels. Its maker closes it."""

    def __init__(self, client: redis.Redis, server: redis.Redis) -> None:
        """`server` is the `owner_of` the channels that callers will add."""
        self.closed = False
        self._client = client
        self._server = server
        self._channels: set[str] = set()
        self._connection: Any = None
        self._sending = threading.Lock()
        self._heard_at = time.monotonic()

    @classmethod
    def to(cls, client: redis.Redis, channel: str) -> "Subscription":
        """A subscription to one channel, at its present owner."""
        subscription = cls(client, owner_of(client, channel))
        try:
            subscription.add(channel)
        except redis.RedisError:
            subscription.close()
            raise
        return subscription

    def add(self, channel: str) -> None:
        """Ask for a channel; `hear` brings its confirmation."""
        self._channels.add(channel)
        self._send("SSUBSCRIBE", channel)

    def remove(self, channel: str) -> None:
        """Take back what was asked for. While the server is still being reached, `add` sees that nobody wants it."""
        self._channels.discard(channel)
        if self._connection is not None:
            self._send("SUNSUBSCRIBE", channel)

    def hear(self, timeout_s: float) -> Sequence[Any] | None:
        """The next reply, as `(kind, channel, data)`; None when none came in time. Call `add` before.

        The kinds are `smessage`, `ssubscribe` (confirmed: from now on it misses nothing) and `sunsubscribe` (another
        node owns the channel now). After an error the subscription cannot be used.
        """
        now = time.monotonic()
        if now - self._heard_at > HEALTH_CHECK_S:
            self._check(now)
        try:
            reply = self._connection.read_response(disconnect_on_error=False, push_request=True, timeout=timeout_s)
        except redis.TimeoutError:
            return None
        except redis.RedisError:
            self._doubt(self._server)
            raise
        self._heard_at = now
        if reply[0] == b"sunsubscribe":
            if reply[1].decode() not in self._channels:
                return None  # `remove` asked for it
            self._doubt()
        return reply if len(reply) == 3 else None  # else the answer to a PING

    def _check(self, now: float) -> None:
        """Send a PING: a machine that has died says nothing, not even that the connection is closed."""
        if now - self._heard_at > HEALTH_CHECK_S + ANSWER_S:
            self._doubt(self._server)
            raise redis.ConnectionError("the subscription is silent and its server answers no PING")
        self._send("PING")

    def _send(self, *command: str) -> None:
        try:
            with self._sending:
                if self.closed:
                    raise redis.ConnectionError("the subscription is closed")
                if self._connection is None:
                    self._connection = self._server.connection_pool.get_connection()
                self._connection.send_command(*command, check_health=False)
        except redis.RedisError:
            self._doubt(self._server)
            raise

    def _doubt(self, failed: redis.Redis | None = None) -> None:
        if isinstance(self._client, Cluster):
            self._client.doubt(failed)

    def close(self) -> None:
        """Idempotent. From now on `add` and `remove` raise."""
        self.closed = True
        with self._sending:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._server.connection_pool.release(connection)
