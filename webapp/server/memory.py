"""Gives memory back to the system after sockets have closed or requests were refused; both servers here call it.

What thousands of packets had filled stays with the process: glibc gives back only the end of its heap, where some small
object of another client lies.
"""

import ctypes
from collections.abc import Callable

import gevent

DELAY_S = 1.0  # sockets close together: a proxy restarts, a crowd leaves


class HeapTrim:
    """`soon` asks the C library to give back its free pages, once for all calls within a second."""

    def __init__(self) -> None:
        self._trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
        self._waiting = False

    def soon(self) -> None:
        if self._trim is not None and not self._waiting:
            self._waiting = True
            gevent.spawn_later(DELAY_S, self._run, self._trim)

    def _run(self, trim: Callable[[int], int]) -> None:
        self._waiting = False
        trim(0)
