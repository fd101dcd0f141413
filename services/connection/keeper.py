"""Keeps the embedded server running: starts it again when it has ended, and waits for room where its disk is full.

With `appendfsync always` Redis ends at the first write that fails, since it may not answer what it could not keep. A
server that ended so has lost nothing that it answered. `chatserver up` calls `tend` all the time.
"""

import time
from collections.abc import Callable

from services.connection.embedded import EmbeddedServer
from services.errors import StorageFull
from services.machine.disk import Reserve

LOOK_S = 1.0


class ServerKeeper:
    """`say` gets a line for each thing that happens. Not thread-safe."""

    def __init__(self, server: EmbeddedServer, say: Callable[[str], object], reserve: Reserve | None = None) -> None:
        self._server = server
        self._say = say
        self._reserve = reserve or Reserve(server.folder / "reserve")
        self._ran = False
        self._full = False
        self._look_at = 0.0

    def tend(self) -> bool:
        """Whether the server runs; not so when a stop came first.

        Raises ConfigurationError when it cannot start for another reason than its disk.
        """
        now = time.monotonic()
        if self._server.running():
            self._ran = True
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                self._reserve.hold()
            return True
        if self._ran:
            self._ran, self._look_at = False, 0.0
            self._say("Redis ended; starting it again")
        return now >= self._look_at and self._start(now)

    def _start(self, now: float) -> bool:
        try:
            if not self._server.start():
                return False
        except StorageFull as error:
            self._wait(error, now)
            return False
        if self._full:
            self._say("there is room again: Redis runs, and everything goes on")
        self._full = False
        return True

    def _wait(self, error: StorageFull, now: float) -> None:
        if released := self._reserve.release():
            self._say(f"{error.message}; {released >> 20} MiB of reserve are released, so that running answers can end")
            return
        self._look_at = now + LOOK_S
        if not self._full:
            self._say(f"{error.message}. Redis waits for room; make some, and everything goes on by itself")
        self._full = True
