"""Runs disk work in threads, outside the event loop: a slow disk must not delay everybody's answers.

What runs here waits for no lock of `threading` that another thread may hold: it is gevent's, and a thread that waits
for one may never be woken (gevent 26.9.0). An uncontended one is fine; else take `_thread.RLock`, or none.
Libraries hide such locks: see `prepare`. Module locks are some, too: import nothing here that others may import.
"""

import itertools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gevent
from gevent.lock import BoundedSemaphore
from sqlalchemy.orm import configure_mappers, loading, session

SLOW_AT_ONCE = 3  # of the ten threads that a hub has
_SLOW = BoundedSemaphore(SLOW_AT_ONCE)

P = ParamSpec("P")
R = TypeVar("R")


def prepare() -> None:
    """Do what SQLAlchemy would do under locks of `threading`; before the first thread, and after all is imported."""
    configure_mappers()
    # It numbers sessions and results under a lock each. The interpreter's own counter is atomic.
    session._new_sessionid = itertools.count(1).__next__
    loading._new_runid = itertools.count(1).__next__


def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `function` in a thread while other greenlets go on. Returns or raises what it does."""

    def call() -> tuple[R | None, Exception | None]:
        try:
            return function(*args, **kwargs), None
        except Exception as error:  # noqa: BLE001  # gevent would print it, although we raise it here below
            return None, error

    value, error = gevent.get_hub().threadpool.apply(call)
    if error is not None:
        raise error
    result: R = value
    return result


def in_slow_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """As `in_thread`, for what may take seconds: it never holds the threads that check sessions and take questions."""
    with _SLOW:
        return in_thread(function, *args, **kwargs)
