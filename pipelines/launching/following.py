"""Copies the log of a run into its job: lines for people, points of the loss curve, the progress.

Used by `pipelines/celery/training_tasks.py`. The follower stores each part in one step with the place up to which it
has read the log. So no line is lost or stored twice, also if a process dies between reading and storing, or several
processes read at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from redis import Redis

from pipelines.launching.progress import after, point_of
from pipelines.launching.targets import Outcome, Target, run_name
from services.connection.connect import server_time
from services.jobs.jobs import Job, Jobs, LogBatch
from services.jobs.training import parse_event
from services.jobs.training_progress import UNIT, TrainingProgress

MOST_READS = 20  # of the log of a run that has ended, in one look


class Follower:
    """Follows one run's log. `masked` removes secrets from a line."""

    def __init__(self, redis: Redis, jobs: Jobs, masked: Callable[[str], str]) -> None:
        self._redis = redis
        self._jobs = jobs
        self._masked = masked

    def follow(
        self, job: Job, target: Target, remote: Mapping[str, Any], outcome: Outcome
    ) -> tuple[TrainingProgress, bool]:
        """The progress, and whether all that is told by now is in it: not so while another process reads, too."""
        noted = TrainingProgress.from_note(self._jobs.units(job.id).get(UNIT, {}))
        progress = replace(noted, state="running", outcome=asdict(outcome))
        name, cursor = run_name(job.id, job.started_s), job.cursor
        for _ in range(MOST_READS):
            lines, place = target.logs(remote, _place(cursor, name))
            batch, progress = self._batch(progress, lines, cursor, f"{name} {place}")
            if not self._jobs.follow(job.id, batch):
                return progress, False
            if not lines or not outcome.ended:  # of a run that goes on, the next look reads the rest
                return progress, not lines
            cursor = batch.cursor_after
        return progress, False

    def _batch(
        self, progress: TrainingProgress, lines: Sequence[str], cursor: str, cursor_after: str
    ) -> tuple[LogBatch, TrainingProgress]:
        shown, points, now_s = [], [], server_time(self._redis)
        for line in map(self._masked, lines):
            event = parse_event(line)
            if event is None:
                shown.append(line)
                continue
            progress = after(progress, event, now_s)
            if point := point_of(event):
                points.append({**point, "time_s": round(now_s, 3)})
        return LogBatch(cursor, cursor_after, UNIT, progress.as_note(), shown, points), progress


def _place(cursor: str, name: str) -> str:
    """In this run's log: a job that was submitted again has another run, and that another log."""
    of, _, place = cursor.partition(" ")
    return place if of == name else ""
