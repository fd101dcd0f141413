"""Limits how often somebody may try a password. Redis counts, so all web processes count together.

A name alone has a generous limit: a narrow one would let anybody lock its owner out. Each address has a narrow one for
each name, and one for all names. That for all names is wide for a private network's address and for this machine's: a
proxy that nobody declared may stand there, with everybody behind it.
"""

import hashlib
import time

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import ConnectionPool, Redis

from services.connection.connect import translated
from services.errors import UserLimit
from services.wire.keys import Keys
from webapp.access.address import internet_address

OF_NAME_AT_ADDRESS = RateLimitItemPerMinute(10, 10)
OF_ADDRESS = RateLimitItemPerMinute(60, 10)
OF_PRIVATE_ADDRESS = RateLimitItemPerMinute(600, 10)
OF_NAME = RateLimitItemPerHour(100)


class SignInAttempts:
    """The attempts of the last minutes, by name and address."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        storage = RedisStorage("redis://", connection_pool=ConnectionPool(), key_prefix=keys.sign_in_attempts)
        storage.storage = redis  # ours, which may be of a cluster; the library would make one of its own
        storage.initialize_storage("")
        self._limiter = MovingWindowRateLimiter(storage)

    def admit(self, name: str, address: str) -> None:
        """Count an attempt from an address as `any_address_of` gives it. Raises UserLimit after too many, whether
        somebody has this name or not."""
        with translated():
            self._count(OF_NAME_AT_ADDRESS, _short(name), address)
            self._count(OF_NAME, _short(name))
            self._count(OF_ADDRESS if internet_address(address) else OF_PRIVATE_ADDRESS, address)

    def succeeded(self, name: str, address: str) -> None:
        """Who knows the password may mistype it again."""
        with translated():
            self._limiter.clear(OF_NAME_AT_ADDRESS, _short(name), address)

    def _count(self, limit: RateLimitItem, *who: str) -> None:
        if not self._limiter.hit(limit, *who):
            wait_s = max(self._limiter.get_window_stats(limit, *who).reset_time - time.time(), 1.0)
            raise UserLimit(
                f"too many attempts to sign in; try again in {round(wait_s / 60) or 1} min",
                retry_after_s=round(wait_s),
            )


def _short(name: str) -> str:
    """A name as part of a key: whatever was typed, this is short and plain."""
    return hashlib.sha256(name.strip().lower().encode()).hexdigest()[:24]
