"""Connections that wait for their next user without any lock.

The web process runs transactions in native threads, and there every lock of `threading` is gevent's: a thread that
waits for one may never be woken (gevent 24.11 to 26.9). `QueuePool` has such locks.
"""

from collections import deque
from typing import Any

from sqlalchemy import NullPool
from sqlalchemy.pool import ConnectionPoolEntry

MAX_IDLE = 8


class IdleConnections(NullPool):
    """A new connection for each caller that finds none idle; up to `MAX_IDLE` stay open.

    It bounds the idle connections alone. How many callers there are at once is bounded by the threads of a process.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle: deque[ConnectionPoolEntry] = deque()  # append and pop are atomic

    def status(self) -> str:
        return f"{len(self._idle)} idle connections"

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return self._idle.pop()  # the newest, so that the others can be noticed as unused by the server
        except IndexError:
            return super()._do_get()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if len(self._idle) < MAX_IDLE:
            self._idle.append(record)
        else:
            record.close()

    def dispose(self) -> None:
        while self._idle:
            self._idle.pop().close()
