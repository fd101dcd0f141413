"""Counts what clients have sent and nobody has served yet: HTTP requests and WebSocket messages, for one process.

`http_server.py` and `websocket.py` hold what is not whole, `transport.py` what is whole and is being served. Each
single request and message has a limit of its own; here is the one of all of them.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger("chatserver.web")

RETRY_S = 5
BUSY: dict[str, Any] = {  # what those are told whose message or request the process has no room for
    "code": "busy",
    "message": "this server is being sent more than it can hold at once; try again later",
    "retry_after_s": RETRY_S,
}


class Inbox:
    """All that clients have sent to one process. Past `max_bytes` it gives up whoever holds most of what is not whole.

    Of two that hold the same the older is given up. One message or request alone always has room: its own limit bounds
    it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0
        self._unfinished: set[Intake] = set()

    def intake(self, give_up: Callable[[], object]) -> "Intake":
        return Intake(self, give_up)

    @contextmanager
    def serving(self, num_bytes: int) -> Iterator[bool]:
        """Counts a whole message while it is served; whether there is room for it."""
        self.held_bytes += num_bytes
        try:
            self._make_room()
            yield self.held_bytes <= self._max_bytes or self.held_bytes == num_bytes
        finally:
            self.held_bytes -= num_bytes

    def account(self, intake: "Intake", num_bytes: int) -> None:
        """An intake holds so many bytes more, or less."""
        self.held_bytes += num_bytes
        if num_bytes > 0:
            self._unfinished.add(intake)
            self._make_room()
        elif not intake.held_bytes:
            self._unfinished.discard(intake)

    def finish(self, intake: "Intake") -> None:
        """What this intake holds is whole: it is not given up any more."""
        self._unfinished.discard(intake)

    def _make_room(self) -> None:
        while self.held_bytes > self._max_bytes and self._unfinished:
            largest = max(self._unfinished, key=lambda intake: (intake.held_bytes, -intake.since))
            if largest.held_bytes == self.held_bytes:
                return
            log.info(
                "clients have sent %d bytes that are not served yet; gave up %d of them that were not whole",
                self.held_bytes,
                largest.held_bytes,
            )
            largest.abandon()


class Intake:
    """What one connection has sent of a request or message. `give_up` is called, in any greenlet, if it must go."""

    __slots__ = ("_give_up", "_inbox", "given_up", "held_bytes", "since")

    def __init__(self, inbox: Inbox, give_up: Callable[[], object]) -> None:
        self._inbox = inbox
        self._give_up = give_up
        self.held_bytes = 0
        self.since = 0.0  # when its first byte came
        self.given_up = False

    def hold(self, num_bytes: int) -> None:
        """So many bytes have come. It may be given up in this call."""
        if self.given_up:
            return
        if not self.held_bytes:
            self.since = time.monotonic()
        self.held_bytes += num_bytes
        self._inbox.account(self, num_bytes)

    def finish(self) -> None:
        """All has come. It counts until `release`."""
        self._inbox.finish(self)

    def release(self) -> None:
        """Nothing of it is held any more; what comes now is another one."""
        held, self.held_bytes = self.held_bytes, 0
        self.given_up = False
        self._inbox.account(self, -held)

    def abandon(self) -> None:
        self.release()
        self.given_up = True
        self._give_up()
