"""Gives everybody a turn beside a client that sends faster than it is served; `http_server.py` and `websocket.py` ask.

gevent lets others run only when a greenlet waits. A client that always has something to be read (pings, requests, the
trailers of a body) would have the process for itself, without end and beyond any timeout.
"""

import time

import gevent

TURN_S = 0.005
_LEAST_S = 1e-6  # a timer: after a sleep of 0, gevent may run fifty turns of this client before it looks at the others


class Turns:
    """The turns of one client."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def end(self) -> None:
        """Let the others run if this client's turn was long enough."""
        if time.monotonic() - self._since > TURN_S:
            gevent.sleep(_LEAST_S)
            self._since = time.monotonic()
