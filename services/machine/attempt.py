"""Runs a call in a thread, so that its caller can stop waiting for it. `wait_for_redis` and health probes use it.

Nothing interrupts the look-up of a host's name, not even a signal. A server that accepts a connection and then says
nothing costs a time-out. In a thread such a call may take long while its caller goes on.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def attempt(action: Callable[[], T]) -> "Future[T]":
    """Begin the call in a daemon thread; the future has its result or its exception."""
    future: Future[T] = Future()
    threading.Thread(target=_carry_out, args=(action, future), name="attempt", daemon=True).start()
    return future


def _carry_out(action: Callable[[], T], future: "Future[T]") -> None:
    try:
        future.set_result(action())
    except BaseException as error:  # noqa: BLE001  # whoever asked gets it
        future.set_exception(error)
