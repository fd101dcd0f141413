"""Ends a unit's process whose job shall end, where the process itself does not look up.

    with guarded(shall_end):
        cleaning.do(unit, watch)      # one record may take minutes in a library that heeds neither signal nor thread

A forked process asks every second. It kills, with SIGKILL: the process is deaf. A unit that is killed leaves a draft
and a free lock, like one that ran out of memory. Used by `pipelines/celery/cleaning_tasks.py`.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

LOOK_S = 1.0
GRACE_S = 3.0  # from the wish to the kill: a unit that looks up between two records ends in order


@contextlib.contextmanager
def guarded(shall_end: Callable[[], bool]) -> Iterator[None]:
    """While inside, this process is killed `GRACE_S` after `shall_end` became true. It is called in another process."""
    ended, alive = os.pipe()  # the kernel closes `alive` when we die, and so the guard ends, too
    ours = os.getpid()
    guard = os.fork()
    if guard == 0:
        os.close(alive)
        _watch(ended, ours, shall_end)
    os.close(ended)
    try:
        yield
    finally:
        os.kill(guard, signal.SIGKILL)
        os.waitpid(guard, 0)
        os.close(alive)


def _watch(ended: int, process: int, shall_end: Callable[[], bool]) -> NoReturn:
    """In the forked process: it must not run what its parent has registered for its own end."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        wished_at: float | None = None
        while not select.select([ended], [], [], LOOK_S)[0]:
            now = time.monotonic()
            wished_at = (wished_at or now) if shall_end() else None
            if wished_at is not None and now - wished_at >= GRACE_S:
                os.kill(process, signal.SIGKILL)
                break
    finally:
        os._exit(0)
