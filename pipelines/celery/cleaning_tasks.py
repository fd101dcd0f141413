"""Cleaning on Celery: the tasks bring a job of kind `clean` to its end, whichever process dies meanwhile.

    advance(job)     look at the folder, send a `unit` task for each unit that can be done now, or end the job;
                     `sweep.py` calls it for every such job every few seconds
    unit(jid, name)  the task: do one unit, under its lock

Only the folder says which units are done (`pipelines/cleaning/units.py`). The process that works on a unit holds the
unit's flock, which the kernel frees when the process dies. Messages and the notes in Redis are hints. So within seconds
a sweep finds a unit whose process was killed (begun, not done, lock free), and sends lost messages again; a message
that comes twice finds its unit done or locked. This needs a file system that shares flocks between all machines that
clean: a local disk on one machine, containers that share it, NFS 4, CephFS, Lustre with `-o flock`; not SMB, not an
object store mounted as a disk. A run whose folder is an `s3://` URL has leases in their place, which end some seconds
after their process (`pipelines/cleaning/leases.py`).

A unit that raises is tried three times, a unit whose process dies (out of memory) five times. Then the tasks give the
unit up with its traceback, the other units of its stage finish, and the job fails. Submitted again, the job continues.
"""

import contextlib
import logging
import os
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence

import orjson
from celery import Celery
from redis import Redis

from pipelines.celery.admission import Admission
from pipelines.celery.guard import guarded
from pipelines.cleaning.cleaning import Cleaning, Progress
from pipelines.cleaning.units import Unit
from services.connection.connect import translated
from services.errors import ChatServerError, ConfigurationError, Gone, Unavailable
from services.jobs.celery_app import num_waiting
from services.jobs.dispatch import Dispatch, DispatchNotes, calmly
from services.jobs.jobs import Job, Jobs
from services.jobs.recipe import parse_recipe
from services.jobs.record_counts import totals
from services.wire.keys import UNIT_TASK, UNITS_QUEUE, Keys

log = logging.getLogger("chatserver.pipelines")

NOTE_S = 1.0  # progress is told, and a cancel seen, this often
RETRY_PAUSES_S = (2.0, 10.0)  # after the first and the second failure; the third is the last
MAX_STARTS = 5  # processes that may die in one unit
LOST_AFTER_S = 10.0  # a task that was sent, with nothing left in the queue, and that nobody began
DEAD_AFTER_S = 1.0  # the least time between two tasks for a unit whose process died
MAX_SENT = 512  # units of one job in the queue: what a lost queue costs, and how long a cancelled one lingers
SHOWN_FAILURES = 3  # with their traceback, in a job's error


class Cancelled(Exception):
    """The job shall end."""


class CleaningTasks:
    """One object for all processes of a worker; each connects by itself."""

    def __init__(self, app: Celery, redis: Redis, keys: Keys, jobs: Jobs, admission: Admission) -> None:
        self._app = app
        self._redis = redis
        self._keys = keys
        self._jobs = jobs
        self._admission = admission

    def register(self) -> None:
        """Tell Celery of the task."""
        self._app.task(name=UNIT_TASK, shared=False)(calmly(self.unit))

    # -- the coordinator -----------------------------------------------------------------------------------------

    def advance(self, job: Job) -> None:
        """Idempotent, and safe in several processes at once."""
        try:
            cleaning = self._admitted(job)
            if job.state == "submitted" and not self._begin(job, cleaning):
                return
        except (ChatServerError, OSError) as error:
            if isinstance(error, Unavailable):
                raise
            self._fail(job, str(error))
            return
        if job.cancelling:
            self._finish_cancel(job, cleaning)
        else:
            self._send_or_end(job, cleaning)

    def _begin(self, job: Job, cleaning: Cleaning) -> bool:
        cleaning.prepare()
        if not self._jobs.started(job.id):
            return self._jobs.get(job.id).state == "running"
        inputs = ", ".join(cleaning.inputs[:3]) + (", …" if len(cleaning.inputs) > 3 else "")
        self._jobs.log(job.id, f"started: recipe {cleaning.recipe.name}, {inputs} → {cleaning.folder.out}")
        if num_done := self._note_missing(job.id, cleaning):
            self._jobs.log(job.id, f"goes on: {num_done} units were done before")
        return True

    def _send_or_end(self, job: Job, cleaning: Cleaning) -> None:
        todo = cleaning.todo()
        if not todo:
            self._finish(job, cleaning)
            return
        if not job.num_units and (num_units := cleaning.num_units()):
            self._jobs.planned(job.id, num_units, len(_done_units(cleaning)))
        dispatch = Dispatch(self._redis, self._keys, job.id)
        sent = dispatch.read()
        left = [unit for unit in todo if unit.name not in sent.failed]
        if left:
            self._send(job, cleaning, dispatch, sent, left[:MAX_SENT])
        else:
            self._fail(job, _failure(sent.failed))

    def _send(
        self, job: Job, cleaning: Cleaning, dispatch: Dispatch, sent: DispatchNotes, units: Sequence[Unit]
    ) -> None:
        lost_after_s = LOST_AFTER_S if sent.sent and num_waiting(self._app, UNITS_QUEUE) == 0 else None
        for unit in units:
            if unit.name not in sent.held:
                again = dispatch.claim(unit.name, lost_after_s)
            elif again := self._is_dead(cleaning, unit) and dispatch.claim(unit.name, DEAD_AFTER_S):
                self._jobs.log(job.id, f"{unit.name}: its process ({sent.held[unit.name]}) is gone; sent again")
            if again:
                self._app.send_task(UNIT_TASK, [job.id, unit.name], retry=False)

    @staticmethod
    def _is_dead(cleaning: Cleaning, unit: Unit) -> bool:
        """For a unit that somebody began: nobody holds it, and it is not done."""
        return not cleaning.is_held(unit) and not cleaning.done(unit)

    def _admitted(self, job: Job) -> Cleaning:
        """Raises ConfigurationError for a recipe that is none, or a job that must not be done."""
        cleaning = _cleaning(job)
        self._admission.check(self._jobs, job, (*cleaning.inputs, *cleaning.recipe.files_named()))
        return cleaning

    # -- a job's end ---------------------------------------------------------------------------------------------

    def _finish(self, job: Job, cleaning: Cleaning) -> None:
        self._note_missing(job.id, cleaning)
        self._jobs.finished(job.id, f"finished: {_totals(cleaning)}")

    def _fail(self, job: Job, error: str) -> None:
        self._jobs.failed(job.id, error, f"failed: {error.splitlines()[0] if error else 'unknown'}")

    def _finish_cancel(self, job: Job, cleaning: Cleaning) -> None:
        """Cancelled once nobody works on it: then it can be submitted again, or removed with its folder."""
        for name in Dispatch(self._redis, self._keys, job.id).read().held:
            if cleaning.is_held(Unit.parse(name)):
                return
        self._jobs.cancelled(job.id, "cancelled; submitted again it goes on from here")

    # -- a unit --------------------------------------------------------------------------------------------------

    def unit(self, jid: str, name: str) -> None:
        job = self._unfinished(jid)
        if job is None:
            return
        try:
            cleaning, unit = self._admitted(job), Unit.parse(name)
        except ConfigurationError as error:
            self._fail(job, str(error))
            return
        # The guard is forked before the lock is taken: it must not hold the lock of a process that died.
        with guarded(lambda: self._shall_end(jid)), cleaning.lock(unit) as ours:
            if ours and not cleaning.done(unit):
                self._do(job, cleaning, unit)
        if (job := self._unfinished(jid)) is not None:
            self.advance(job)

    def _shall_end(self, jid: str) -> bool:
        try:
            with translated():
                job = self._jobs.get(jid)
        except (Unavailable, Gone):
            return False
        return job.ended or job.cancelling

    def _unfinished(self, jid: str) -> Job | None:
        try:
            job = self._jobs.get(jid)
        except Gone:
            return None
        return None if job.ended else job

    def _do(self, job: Job, cleaning: Cleaning, unit: Unit) -> None:
        """With the unit's lock. Whatever ends it in order is noted; what is not noted was a death."""
        dispatch = Dispatch(self._redis, self._keys, job.id)
        starts = dispatch.take(unit.name, f"{socket.gethostname()}:{os.getpid()}")
        if starts > MAX_STARTS:
            why = f"the process died {MAX_STARTS} times in it; is there too little memory?"
            self._give_up(job, dispatch, unit, why)
        if not 0 < starts <= MAX_STARTS:
            return
        try:
            cleaning.do(unit, _Watch(self._jobs, job.id, unit.name))
        except (Cancelled, SystemExit) as error:  # the job shall end, or this process shall
            with self._noting(job):
                self._jobs.note(job.id, unit.name, {"state": "waiting"})
                dispatch.again(unit.name)
            if isinstance(error, SystemExit):
                raise
        except ConfigurationError as error:  # another try would find the same
            with self._noting(job):
                self._give_up(job, dispatch, unit, str(error))
        except Exception as error:  # a step may raise anything: tried again, then told
            log.warning("unit failed", exc_info=True)
            with self._noting(job):
                self._failed(job, dispatch, unit, error)
        else:
            with self._noting(job):
                self._done(job, cleaning, dispatch, unit)

    @contextlib.contextmanager
    def _noting(self, job: Job) -> Iterator[None]:
        """What cannot be noted because Redis is away, the sweep finds in the folder.

        While we hold a unit its job can end, and so be removed, by nobody. If it is gone, Redis has lost its data.
        """
        try:
            with translated():
                yield
        except Unavailable as error:
            log.warning("the end of a unit is not noted: %s", error)
        except Gone:
            log.warning("Redis has lost a job; it is submitted again")
            self._jobs.submit(job.id, job.kind, job.name, job.spec)
            self._jobs.log(job.id, "Redis had lost this job; it goes on")

    def _done(self, job: Job, cleaning: Cleaning, dispatch: Dispatch, unit: Unit) -> None:
        self._note_done(job.id, cleaning, unit)
        if unit.kind != "finish":  # the job's last line tells more
            self._jobs.log(job.id, _line(unit, cleaning.counts(unit)))
        dispatch.done(unit.name)

    def _note_missing(self, jid: str, cleaning: Cleaning) -> int:
        """Note the done units of which nothing was noted; how many are done."""
        noted, done = self._jobs.units(jid), _done_units(cleaning)
        for unit in done:
            if noted.get(unit.name, {}).get("state") != "done":
                self._note_done(jid, cleaning, unit)
        return len(done)

    def _note_done(self, jid: str, cleaning: Cleaning, unit: Unit) -> None:
        counts = cleaning.counts(unit)
        kept: Progress = {name: counts[name] for name in ("records", "of", "steps") if name in counts}
        self._jobs.note(jid, unit.name, {"state": "done", **kept})

    def _failed(self, job: Job, dispatch: Dispatch, unit: Unit, error: Exception) -> None:
        attempt = dispatch.read().attempts.get(unit.name, 0) + 1
        trace = "".join(traceback.format_exception(error)).strip()
        if attempt > len(RETRY_PAUSES_S):
            self._give_up(job, dispatch, unit, trace)
            return
        pause_s = RETRY_PAUSES_S[attempt - 1]
        self._jobs.log(job.id, f"{unit.name} failed, again in {pause_s:g} s ({attempt + 1} of 3):\n{trace}")
        self._jobs.note(job.id, unit.name, {"state": "waiting", "error": _last_line(trace)})
        dispatch.again(unit.name, pause_s)

    def _give_up(self, job: Job, dispatch: Dispatch, unit: Unit, why: str) -> None:
        self._jobs.log(job.id, f"{unit.name} is given up: {why}")
        self._jobs.note(job.id, unit.name, {"state": "failed", "error": why})
        dispatch.give_up(unit.name, why)


class _Watch:
    """Reports a unit's progress now and then, and raises Cancelled when the job shall end. Redis may be away."""

    def __init__(self, jobs: Jobs, jid: str, unit: str) -> None:
        self._jobs, self._jid, self._unit = jobs, jid, unit
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + NOTE_S
        kept = {name: progress[name] for name in ("records", "of", "steps")}
        try:
            with translated():
                goes_on = self._jobs.note(self._jid, self._unit, {"state": "running", **kept})
        except (Unavailable, Gone):
            return
        if not goes_on:
            raise Cancelled


def _cleaning(job: Job) -> Cleaning:
    """Raises ConfigurationError for a recipe that is none."""
    recipe = parse_recipe(job.spec["recipe"], job.spec["recipe_name"])
    return Cleaning(job.spec["out"], recipe, job.spec["inputs"], job.spec.get("labels") or ())


def _done_units(cleaning: Cleaning) -> list[Unit]:
    """All that are done, from the folder."""
    finished = cleaning.folder.finished_counts()
    names = cleaning.folder.done_names() if finished is None else [*finished, "finish"]
    found = []
    for name in names:
        with contextlib.suppress(ConfigurationError):  # the locks, a draft
            found.append(Unit.parse(name))
    return found


def _line(unit: Unit, counts: Progress) -> str:
    """A done unit, for people."""
    steps = counts.get("steps", {})
    reasons = {reason: n for step in steps.values() for reason, n in step.get("rejected", {}).items()}
    rejected = f", {sum(reasons.values()):,} rejected" if reasons else ""
    if unit.kind == "read":
        return f"read {steps['read']['records_in']:,} records into {len(counts['shards'])} shards{rejected}"
    if unit.kind == "shard":
        return f"{unit.name}: {counts['records']:,} records in, {counts['records_out']:,} out{rejected}"
    return f"{unit.name}: done"


def _totals(cleaning: Cleaning) -> str:
    sums = orjson.loads(cleaning.folder.result("report.json"))["sums"]
    return totals(sums["records_read"], sums["records_rejected"], sums["records_written"])


def _failure(failed: Mapping[str, str]) -> str:
    """What people read of a job with units that were given up."""
    names = sorted(failed)
    listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    first = f"{len(names)} of its units failed: {listed}: {_last_line(failed[names[0]])}"
    return "\n\n".join([first, *(f"{name}: {failed[name]}" for name in names[:SHOWN_FAILURES])])


def _last_line(trace: str) -> str:
    return trace.splitlines()[-1]
