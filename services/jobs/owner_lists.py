"""The list of each user's jobs of a kind, in Redis, in the order in which the user ordered them.

    lists = OwnerLists(redis, Keys(settings.namespace))
    lists.place("ann", "batch", "batch_1")  # before the job is made
    lists.times("ann", "batch")

`jobs.py` lists each job that has an owner; `owned_jobs.py` reads the lists.
"""

from collections.abc import Mapping

from redis import Redis

from services.jobs.scripts import script
from services.wire.keys import Keys

_LIST, _UNLIST = script("list"), script("unlist")


class OwnerLists:
    """Of one installation. Times are seconds by the clock of Redis."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    def place(self, owner: str, kind: str, jid: str) -> dict[str, float]:
        """List a job behind all others. As `times`; the last id is this one."""
        found = _LIST(self._redis, [self._keys.owned_jobs(owner, kind)], jid)
        return {name.decode(): float(time_s) for name, time_s in zip(found[::2], found[1::2], strict=True)}

    def add(self, owner: str, kind: str, jid: str, time_s: float) -> bool:
        """List a job, unless it is listed; whether it was not."""
        return bool(self._redis.zadd(self._keys.owned_jobs(owner, kind), {jid: time_s}, nx=True))

    def times(self, owner: str, kind: str) -> dict[str, float]:
        """Job id → when it was listed, oldest first. Some may have expired, and some never have been made."""
        found = self._redis.zrange(self._keys.owned_jobs(owner, kind), 0, -1, withscores=True)
        return {name.decode(): time_s for name, time_s in found}

    def drop(self, owner: str, kind: str, times: Mapping[str, float], *, older_than_s: float = 0.0) -> None:
        """Take jobs off the list that are not there. `times` as read: what was listed anew since then stays."""
        if times:
            read = [text for jid, time_s in times.items() for text in (jid, repr(time_s))]
            _UNLIST(self._redis, [self._keys.owned_jobs(owner, kind)], older_than_s, *read)
