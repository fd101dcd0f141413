"""Work on disks, out of the event loop: a slow disk must not hold up the answers of all who chat."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gevent

P = ParamSpec("P")
R = TypeVar("R")


def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` returns or raises; other greenlets run meanwhile."""

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
