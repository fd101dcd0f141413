"""Which units of a job were sent to Celery, who runs them and how often they failed: notes in Redis, for `tasks.py`.

They only save work and bound it. If they are lost, units are sent again and find themselves done or locked.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kombu.exceptions import OperationalError
from redis import Redis

from services.connection.connect import translated
from services.errors import Unavailable
from services.jobs.scripts import script
from services.logs import about
from services.wire.keys import Keys

log = logging.getLogger("chatserver.pipelines")

_CLAIM, _TAKE, _RELEASE = script("claim"), script("take"), script("release")


@dataclass(frozen=True)
class DispatchNotes:
    """The notes of one job, as they were at one moment, by the unit's name."""

    held: Mapping[str, str]  # who began it and has not ended it: host:pid
    sent: frozenset[str]
    attempts: Mapping[str, int]
    failed: Mapping[str, str]  # given up: why


class Dispatch:
    """Over the notes of one job."""

    def __init__(self, redis: Redis, keys: Keys, jid: str) -> None:
        self._redis = redis
        self._keys = keys.job(jid)

    def read(self) -> DispatchNotes:
        notes: dict[str, dict[str, str]] = {what: {} for what in ("held", "sent", "attempts", "failed")}
        for raw, value in self._redis.hgetall(self._keys.tasks).items():
            what, _, unit = raw.decode().partition(" ")
            notes.get(what, {})[unit] = value.decode(errors="replace")
        attempts = {unit: int(number) for unit, number in notes["attempts"].items()}
        return DispatchNotes(notes["held"], frozenset(notes["sent"]), attempts, notes["failed"])

    def claim(self, unit: str, lost_after_s: float | None = None) -> bool:
        """Whether the caller shall send a task for the unit; with `lost_after_s`, also when one was sent before."""
        return bool(_CLAIM(self._redis, self._keys.all, unit, "" if lost_after_s is None else lost_after_s))

    def take(self, unit: str, who: str, *, though_ending: bool = False) -> int:
        """How often it was begun without an orderly end, this time included; 0: the job shall not go on."""
        return int(_TAKE(self._redis, self._keys.all, unit, who, int(though_ending)))

    def done(self, unit: str) -> None:
        _RELEASE(self._redis, self._keys.all, unit, "done", 0, "")

    def again(self, unit: str, pause_s: float = 0) -> None:
        """It ended before it was done. With a pause that was a failed attempt."""
        _RELEASE(self._redis, self._keys.all, unit, "again", pause_s, "")

    def rest(self, unit: str, pause_s: float) -> None:
        """It shall be looked at again after a pause, as a fine-tuning that runs elsewhere."""
        _RELEASE(self._redis, self._keys.all, unit, "rest", pause_s, "")

    def give_up(self, unit: str, why: str) -> None:
        _RELEASE(self._redis, self._keys.all, unit, "failed", 0, why.encode(errors="replace"))


def calmly(task: Callable[..., None]) -> Callable[..., None]:
    """A task during which Redis goes away is one line: the next sweep does what it did not.

    All its lines name the job and the unit, which are the task's arguments.
    """

    @functools.wraps(task)
    def run(*arguments: str) -> None:
        with about(**dict(zip(("job", "unit"), arguments, strict=False))):
            try:
                with translated():
                    task(*arguments)
            except (Unavailable, OperationalError) as error:
                log.warning("%s is left to the next sweep: %s", task.__name__, error)

    return run
