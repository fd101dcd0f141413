"""Fine-tuning on Celery: one task brings a job of kind `train` to its end, whichever process dies meanwhile.

    advance(jid)     launch the run if it is not launched, copy its log, report its state; or end the job and give its
                     machines back

`pipelines/celery/sweep.py` sends the task for every such job, one at a time per job, into a queue of its own: clouds
answer slowly, and cleaning must not wait for them. A target (`pipelines/launching/targets.py`) runs the program. Any
call may come twice, late, or after a process died in the middle of an earlier one, so the task always asks the target
for the state of the run. A launch gets its name from the job before it starts, so a second launch finds the first. The
task stores the lines of a log in one step with the place up to which it has read the log.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from celery import Celery
from redis import Redis

from pipelines.celery.admission import Admission
from pipelines.launching.following import Follower
from pipelines.launching.targets import ENDED, Outcome, Target, run_name, run_of
from services.connection.connect import translated
from services.errors import ConfigurationError, Gone, Unavailable
from services.jobs.celery_app import num_waiting
from services.jobs.dispatch import Dispatch, DispatchNotes, calmly
from services.jobs.jobs import Job, Jobs
from services.jobs.training_jobs import check_unchanged
from services.jobs.training_progress import UNIT, TrainingProgress
from services.machine.processes import is_alive
from services.wire.keys import TRAIN_TASK, TRAININGS_QUEUE, Keys

log = logging.getLogger("chatserver.pipelines")

# Between two looks; on this machine every sweep is one.
PAUSES_S = {"local": 0.0, "sky": 15.0}
TROUBLE_PAUSE_S = 10.0  # after a look that failed
HUNG_AFTER_S = 300.0  # then a look is killed, and another one sent
LOST_AFTER_S = 10.0  # a task that was sent, with nothing left in the queue, and that nobody began
DEAD_AFTER_S = 1.0  # one whose process died
AWAY_PAUSE_S = 0.5  # between two tries to reach a Redis that is away
LAUNCHING = "launching"  # stands in `Job.remote` alone while a launch may have been made and is not known yet

Registering = Callable[[Job, TrainingProgress], str]


class TrainingTasks:
    """The work of the task. `targets` makes a target by name; `register` registers a model and returns its name.

    `secrets` are passed to the run, and removed from every text that is shown.
    """

    def __init__(
        self,
        app: Celery,
        redis: Redis,
        keys: Keys,
        jobs: Jobs,
        admission: Admission,
        targets: Mapping[str, Callable[[], Target]],
        secrets: Mapping[str, str],
        register: Registering,
    ) -> None:
        self._app = app
        self._redis = redis
        self._keys = keys
        self._jobs = jobs
        self._admission = admission
        self._targets = targets
        self._secrets = {name: value for name, value in secrets.items() if value}
        self._registered = register

    def register(self) -> None:
        """Tell Celery of the task. One that hangs in a cloud's library is killed."""
        self._app.task(name=TRAIN_TASK, shared=False, time_limit=HUNG_AFTER_S)(calmly(self.advance))

    # -- who is looked at, and when ------------------------------------------------------------------------------

    def send(self, job: Job) -> None:
        """A task for the job, unless one is on its way, at work, or not due yet."""
        try:
            self._admission.check(self._jobs, job, job.spec.get("data", ()))
        except ConfigurationError as error:
            self._fail(job, str(error))
            return
        if job.state == "submitted" and self._jobs.started(job.id):
            self._jobs.log(job.id, f"started: {job.name} on {job.spec['on']}, {', '.join(job.spec['data'])}")
        dispatch = Dispatch(self._redis, self._keys, job.id)
        if dispatch.claim(UNIT, self._lost_after_s(dispatch.read())):
            self._app.send_task(TRAIN_TASK, [job.id], retry=False)

    def _lost_after_s(self, sent: DispatchNotes) -> float:
        """When the last task counts as lost."""
        holder = sent.held.get(UNIT)
        if holder is not None:
            return DEAD_AFTER_S if _is_dead(holder) else HUNG_AFTER_S
        return LOST_AFTER_S if num_waiting(self._app, TRAININGS_QUEUE) == 0 else HUNG_AFTER_S

    def advance(self, jid: str) -> None:
        """Idempotent, and safe in several processes at once."""
        try:
            job = self._jobs.get(jid)
        except Gone:
            return
        if job.kind != "train" or job.state != "running":
            return
        dispatch = Dispatch(self._redis, self._keys, jid)
        pause_s = TROUBLE_PAUSE_S
        try:
            dispatch.take(UNIT, f"{socket.gethostname()}:{os.getpid()}", though_ending=True)
            self._look(job)
            pause_s = PAUSES_S[job.spec["on"]]
        except (Unavailable, Gone):
            raise
        except ConfigurationError as error:  # another try would find the same
            self._fail(job, str(error))
        except Exception as error:  # a target may raise anything: clouds do
            log.warning("a fine-tuning cannot be looked at", exc_info=True)
            self._tell_trouble(job, error)
        finally:
            _rest(dispatch, pause_s)

    # -- one look ------------------------------------------------------------------------------------------------

    def _look(self, job: Job) -> None:
        self._admission.check(self._jobs, job, job.spec["data"])
        target = self._targets[job.spec["on"]]()
        if not job.remote and job.cancelling:
            self._end(job, "cancelled")
            return
        remote = self._jobs.attached(job)
        if not remote or LAUNCHING in remote:
            remote = self._launch(job, target)
        if job.cancelling:
            target.cancel(remote)
        outcome = self._known_end(job) or self._masked(target.poll(remote))
        progress, whole = Follower(self._redis, self._jobs, self.masked).follow(job, target, remote, outcome)
        if outcome.ended and whole:
            target.down(remote)
            self._conclude(job, outcome, progress)

    def _known_end(self, job: Job) -> Outcome | None:
        """How it ended, if an earlier look died after it had noted that: its machines may be gone by now."""
        noted = TrainingProgress.from_note(self._jobs.units(job.id).get(UNIT, {}))
        of_this_run = job.cursor.startswith(run_name(job.id, job.started_s) + " ")
        return Outcome(**noted.outcome) if of_this_run and noted.outcome.get("state") in ENDED else None

    def _launch(self, job: Job, target: Target) -> dict[str, Any]:
        """A launch that was made and is not known, or that a stranger or an older build noted, is found by its name."""
        check_unchanged(job.spec)
        name = run_name(job.id, job.started_s)
        self._jobs.attach(job.id, {LAUNCHING: name})
        remote = target.submit(run_of(job.spec, name, job.id, self._secrets))
        self._jobs.attach(job.id, remote)
        self._jobs.log(job.id, f"launched as {name}")
        return remote

    # -- its end -------------------------------------------------------------------------------------------------

    def _conclude(self, job: Job, outcome: Outcome, progress: TrainingProgress) -> None:
        if outcome.state == "finished":
            name = self._registered(job, progress)
            self._note_end(job, replace(progress, state="done"))
            self._end(job, "finished", f"finished: the model {name} is ready to be served")
        elif job.cancelling or outcome.state == "cancelled":
            why = f" ({outcome.message})" if outcome.message else ""
            self._end(job, "cancelled", f"cancelled{why}; submitted again it goes on from its newest checkpoint")
        else:
            self._note_end(job, replace(progress, state="failed"))
            self._fail(job, progress.failure or outcome.message or "the run failed and did not say why", outcome.remedy)

    def _note_end(self, job: Job, progress: TrainingProgress) -> None:
        self._jobs.note(job.id, UNIT, progress.as_note())

    def _fail(self, job: Job, message: str, remedy: str = "") -> None:
        error = self.masked("\n".join(filter(None, (message, remedy))))
        self._jobs.failed(job.id, error, f"failed: {error}")

    def _end(self, job: Job, state: str, line: str = "") -> None:
        end = self._jobs.finished if state == "finished" else self._jobs.cancelled
        end(job.id, line)

    def _tell_trouble(self, job: Job, error: Exception) -> None:
        """In the note, which is replaced when the next look succeeds, rather than in a line at every look."""
        progress = TrainingProgress.from_note(self._jobs.units(job.id).get(UNIT, {}))
        message = self.masked(f"cannot be looked at, tried again: {type(error).__name__}: {error}")
        if progress.outcome.get("message") != message:
            self._jobs.log(job.id, message)
        if progress.outcome.get("state") in ENDED:  # what is known of its end stays
            return
        outcome = {**progress.outcome, "message": message}
        self._jobs.note(job.id, UNIT, replace(progress, outcome=outcome).as_note())

    # -- what nobody shall read ----------------------------------------------------------------------------------

    def masked(self, text: str) -> str:
        for value in self._secrets.values():
            text = text.replace(value, "***")
        return text

    def _masked(self, outcome: Outcome) -> Outcome:
        return replace(outcome, message=self.masked(outcome.message), remedy=self.masked(outcome.remedy))


def _rest(dispatch: Dispatch, pause_s: float) -> None:
    """Until Redis answers: beside a note that stays, this process, idle and alive, would pass for one that hangs."""
    while True:
        try:
            with translated():
                dispatch.rest(UNIT, pause_s)
            return
        except Unavailable:
            time.sleep(AWAY_PAUSE_S)


def _is_dead(holder: str) -> bool:
    """A process of this machine that is gone; of others nobody here can tell."""
    host, _, pid = holder.rpartition(":")
    return host == socket.gethostname() and not is_alive(int(pid))
