"""Limits how many new users one internet address may become: each cookie is a user, with turns of its own in the queue.

Each web process counts for itself.
"""

import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from services.errors import Busy

PER_MINUTE = 30  # a classroom may open the page at once, a program may not make users without end


class Newcomers:
    """The new users of the last minute, by address."""

    def __init__(self, per_minute: int = PER_MINUTE) -> None:
        self._rate = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def admit(self, address: str) -> None:
        """Count one new user. Raises Busy when this address has made too many; an empty address may make any number."""
        if address and not self._limiter.hit(self._rate, address):
            wait_s = max(self._limiter.get_window_stats(self._rate, address).reset_time - time.time(), 1.0)
            raise Busy(
                f"{self._rate.amount} new users came from {address} within a minute",
                remedy="keep the session cookie, or try again later",
                retry_after_s=round(wait_s),
            )
