"""Notes in Redis for the pipelines' tasks: which units of a job Celery got, who runs them, how often they failed.

The notes only save work and bound it. Without them the pipelines send units again; a unit that is done or locked does
nothing.
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
    """The notes of one job at one moment, by the unit's name."""

    held: Mapping[str, str]  # who began it and has not ended it: host:pid
    sent: frozenset[str]
    attempts: Mapping[str, int]
    failed: Mapping[str, str]  # given up: why


class Dispatch:
    """Reads and writes the notes of one job."""

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
        """Whether the caller shall send a task for the unit.

        With `lost_after_s` also when a task was sent longer ago than that.
        """
        return bool(_CLAIM(self._redis, self._keys.all, unit, "" if lost_after_s is None else lost_after_s))

    def take(self, unit: str, who: str, *, though_ending: bool = False) -> int:
        """How often the unit was begun without an orderly end, this time included; 0: the job shall not go on."""
        return int(_TAKE(self._redis, self._keys.all, unit, who, int(though_ending)))

    def done(self, unit: str) -> None:
        _RELEASE(self._redis, self._keys.all, unit, "done", 0, "")

    def again(self, unit: str, pause_s: float = 0) -> None:
        """Note that the unit ended before it was done. A pause marks a failed attempt."""
        _RELEASE(self._redis, self._keys.all, unit, "again", pause_s, "")

    def rest(self, unit: str, pause_s: float) -> None:
        """Let the pipelines look at the unit again after a pause, such as a fine-tuning that runs elsewhere."""
        _RELEASE(self._redis, self._keys.all, unit, "rest", pause_s, "")

    def give_up(self, unit: str, why: str) -> None:
        _RELEASE(self._redis, self._keys.all, unit, "failed", 0, why.encode(errors="replace"))


def calmly(task: Callable[..., None]) -> Callable[..., None]:
    """Log one line when Redis goes away during a task. The next sweep does the rest of the work.

    All log lines inside name the job and the unit, which are the task's arguments.
    """

    @functools.wraps(task)
    def run(*arguments: str) -> None:
        with about(**dict(zip(("job", "unit"), arguments, strict=False))):
            try:
                with translated():
                    task(*arguments)
            except (Unavailable, OperationalError) as error:
                log.warning("Redis is away; the next sweep does %s: %s", task.__name__, error)

    return run
