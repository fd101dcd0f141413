"""The sweep over all jobs that have not ended: `python -m pipelines worker` looks at each of them again and again.

    sweep()          call `advance` for every job that has not ended; beat sends it every few seconds
    advance(jid)     hand one job to the tasks of its kind; sent when a job is submitted

`cleaning_tasks.py` starts each unit that can be done now; `training_tasks.py` sends its task to other workers. Any call
may come twice, late, or after a process died in the middle of an earlier one.
"""

import logging
from collections.abc import Callable, Mapping

from celery import Celery
from redis import Redis

from services.errors import Gone, Unavailable
from services.jobs.dispatch import calmly
from services.jobs.jobs import Job, Jobs
from services.logs import about
from services.wire.keys import ADVANCE_TASK, SWEEP_TASK, Keys

log = logging.getLogger("chatserver.pipelines")

Advance = Callable[[Job], None]


class Sweep:
    """`kinds`: kind of a job → the function that advances a job of that kind."""

    def __init__(self, app: Celery, redis: Redis, keys: Keys, kinds: Mapping[str, Advance]) -> None:
        self._app = app
        self._jobs = Jobs(redis, keys)
        self._kinds = kinds

    def register(self) -> None:
        """Tell Celery which task is which method."""
        for name, task in ((ADVANCE_TASK, self.advance), (SWEEP_TASK, self.sweep)):
            self._app.task(name=name, shared=False)(calmly(task))

    def sweep(self) -> None:
        for job in self._jobs.unfinished():
            with about(job=job.id):
                try:
                    self.advance(job.id)
                except Unavailable:
                    raise
                except Exception:  # one job must not keep the others waiting
                    log.exception("the job cannot be advanced")

    def advance(self, jid: str) -> None:
        """Idempotent, and safe in several processes at once. KeyError: a job of a kind that a later version knows."""
        try:
            job = self._jobs.get(jid)
        except Gone:
            return
        self._jobs.list_for_owner(job)  # a web process of an older build does not
        if not job.ended:
            self._kinds[job.kind](job)
