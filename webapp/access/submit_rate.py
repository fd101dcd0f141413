"""Limits how many requests one user, and one internet address, may submit in a minute; `webapp/chat/sockets.py` asks.

The queue's limits count requests in flight. Who submits and cancels at once is never over them, and each such request
leaves some kilobytes in Redis for ten minutes. Each web process counts for itself.
"""

import time
from collections import Counter
from collections.abc import Callable

from services.errors import UserLimit

WINDOW_S = 60.0


class SubmitRate:
    """The submits of the present minute, by user and by address."""

    def __init__(self, of_user: int, of_address: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._of_user = of_user
        self._of_address = of_address
        self._clock = clock
        self._until = 0.0
        self._num_submits: Counter[tuple[str, str]] = Counter()

    def admit(self, user: str, address: str) -> None:
        """Count one submit. Raises UserLimit after too many of them. An empty address has no limit."""
        now = self._clock()
        if now >= self._until:
            self._num_submits.clear()
            self._until = now + WINDOW_S
        self._count(("user", user), self._of_user, "you have", now)
        if address:
            self._count(("address", address), self._of_address, "your address has", now)

    def _count(self, who: tuple[str, str], most: int, words: str, now: float) -> None:
        if self._num_submits[who] >= most:
            raise UserLimit(
                f"{words} submitted {most} requests within a minute", retry_after_s=round(self._until - now, 1)
            )
        self._num_submits[who] += 1
