"""Batches on Celery: one task brings a job of kind `batch` to its end, whichever process dies meanwhile.

    answer(jid)      check the input, then ask its lines for some seconds; or write the result and end the job

The task works under the lock of the job's folder and ends after a turn, so that many batches share few processes. It
sends the next turn itself. `pipelines/celery/sweep.py` sends it when nobody does: a message was lost, or the process
died. What was asked goes on in the queue meanwhile; `pipelines/batches/window.py` says why nothing is answered twice.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from pipelines.batches.ledger import BatchLedger
from pipelines.batches.lines import check_input
from pipelines.batches.questions import Questions
from pipelines.batches.window import BatchWindow
from pipelines.celery.admission import Admission
from services.chat.dead_letters import DeadLetters
from services.chat.feed import AnswerFeed
from services.chat.requests import Requests
from services.connection.connect import server_time
from services.errors import ConfigurationError, Gone, Unavailable
from services.jobs.batches import KIND, UNIT, WINDOW_S, BatchProgress
from services.jobs.celery_app import num_waiting
from services.jobs.dispatch import Dispatch, DispatchNotes, calmly
from services.jobs.jobs import Job, Jobs
from services.jobs.stored_files import StoredFiles, made_id
from services.responses.responses import Responses
from services.serving.registry import Registry
from services.settings import Settings
from services.wire.keys import BATCH_TASK, BATCHES_QUEUE, Keys

log = logging.getLogger("chatserver.pipelines")

TURN_S = 10.0
NOTE_S = 1.0
TROUBLE_PAUSE_S = 10.0  # after a turn that failed
LOST_AFTER_S = 10.0  # a task that was sent, with nothing left in the queue, and that nobody began
DEAD_AFTER_S = 1.0  # one whose process died
MAX_WINDOW = 64
COPY_BYTES = 1 << 20


class BatchTasks:
    """The work of the task. One object for all processes of a worker; each connects by itself."""

    def __init__(
        self, app: Celery, redis: Redis, keys: Keys, jobs: Jobs, admission: Admission, settings: Settings
    ) -> None:
        self._app = app
        self._redis = redis
        self._keys = keys
        self._jobs = jobs
        self._admission = admission
        self._max_chars = settings.max_message_chars
        # Half of what a user may have in flight: the other half is for the user's own questions.
        self._window = max(1, min(MAX_WINDOW, settings.max_user_requests // 2))
        self._requests = Requests.from_settings(redis, settings)
        self._files = StoredFiles(settings.state_dir / "files", max_bytes=2**63)  # the input was bounded

    def register(self) -> None:
        """Tell Celery of the task.

        Its message is acknowledged at once: by the lock the sweep sees a turn whose process died, and sends another.
        """
        self._app.task(name=BATCH_TASK, shared=False, acks_late=False)(calmly(self.answer))

    # -- who works, and when -------------------------------------------------------------------------------------

    def send(self, job: Job) -> None:
        """A task for the job, unless one is on its way, at work, or not due yet."""
        try:
            self._admission.check(self._jobs, job, ())
        except ConfigurationError as error:
            self._jobs.failed(job.id, str(error), f"failed: {error}")
            return
        if job.state == "submitted" and self._jobs.started(job.id):
            self._jobs.log(job.id, f"started: {job.name} for {job.spec['endpoint']}")
        dispatch = Dispatch(self._redis, self._keys, job.id)
        self._send_next(job, dispatch, self._lost_after_s(job, dispatch.read()))

    def _send_next(self, job: Job, dispatch: Dispatch, lost_after_s: float | None = None) -> None:
        if dispatch.claim(UNIT, lost_after_s):
            self._app.send_task(BATCH_TASK, [job.id], retry=False)

    def _lost_after_s(self, job: Job, sent: DispatchNotes) -> float | None:
        """When the last task counts as lost; None: it is at work."""
        if UNIT in sent.held:
            with BatchLedger.lock(Path(job.spec["out"])) as ours:
                return None if ours is None else DEAD_AFTER_S
        return LOST_AFTER_S if num_waiting(self._app, BATCHES_QUEUE) == 0 else None

    def answer(self, jid: str) -> None:
        """Idempotent, and safe in several processes at once."""
        try:
            job = self._jobs.get(jid)
        except Gone:
            return
        if job.kind != KIND or job.state != "running":
            return
        self._admission.check(self._jobs, job, ())
        folder, dispatch = Path(job.spec["out"]), Dispatch(self._redis, self._keys, jid)
        with BatchLedger.lock(folder) as ours:
            if ours is None or not dispatch.take(UNIT, f"{socket.gethostname()}:{os.getpid()}", though_ending=True):
                return
            pause_s = self._turn_safely(job, folder)
            dispatch.rest(UNIT, pause_s)
        if not pause_s:
            self._send_next(job, dispatch)

    def _turn_safely(self, job: Job, folder: Path) -> float:
        """One turn; after how many seconds the next one is due."""
        try:
            self._turn(job, BatchLedger(folder))
        except (Unavailable, RedisError):
            raise
        except Gone:
            log.warning("Redis has lost a job; it is submitted again")
            self._jobs.submit(job.id, job.kind, job.name, job.spec)
        except Exception as error:  # a disk that is full, a file that is gone: told, and tried again
            log.warning("a batch does not go on", exc_info=True)
            self._jobs.log(job.id, f"does not go on, tried again: {type(error).__name__}: {error}")
            return TROUBLE_PAUSE_S
        return 0.0

    # -- one turn ------------------------------------------------------------------------------------------------

    def _turn(self, job: Job, ledger: BatchLedger) -> None:
        if not ledger.place.num_lines and not self._check(job, ledger):
            return
        if not ledger.place.ended:
            self._ask(job, ledger)
        if ledger.place.ended:
            self._conclude(job, ledger)

    def _check(self, job: Job, ledger: BatchLedger) -> bool:
        """Whether the input is one. Else the job fails, and says why."""
        num_lines, errors = self._checked(job, ledger)
        if errors:
            self._jobs.note(job.id, UNIT, BatchProgress("failed", errors=errors).as_note())
            ledger.let_go()
            lines = [f"line {each['line']}: {each['message']}" if each["line"] else each["message"] for each in errors]
            self._jobs.failed(job.id, "\n".join(lines), f"failed: {lines[0]}")
            return False
        ledger.checked(num_lines, int(server_time(self._redis)))
        self._jobs.planned(job.id, 1, 0)
        return True

    def _checked(self, job: Job, ledger: BatchLedger) -> tuple[int, list[dict[str, Any]]]:
        """The number of lines, and the errors. Without the input those that a process found which died then."""
        try:
            return check_input(ledger.input, job.spec["endpoint"])
        except FileNotFoundError:
            found = BatchProgress.from_note(self._jobs.units(job.id).get(UNIT, {})).errors
            return 0, found or [{"code": "missing_file", "line": None, "message": "the input is gone", "param": None}]

    def _ask(self, job: Job, ledger: BatchLedger) -> None:
        feed = AnswerFeed(self._requests, self._redis, spawn=_thread)
        feed.start()
        window = BatchWindow(job.id, self._requests, feed, self._questions(job), ledger, size=self._window)
        try:
            over, noted_at = time.monotonic() + TURN_S, 0.0
            while not ledger.place.ended and time.monotonic() < over:
                if time.monotonic() - noted_at > NOTE_S:
                    noted_at = time.monotonic()
                    if how := self._shall_end(job, ledger):
                        window.end(how)
                        return
                window.step()
        finally:
            window.leave()
            feed.stop()

    def _shall_end(self, job: Job, ledger: BatchLedger) -> str:
        """Why no further line is asked; empty while the batch goes on. It tells how far the batch is."""
        if not self._jobs.note(job.id, UNIT, _progress(ledger).as_note()):
            return "cancelled"
        return "expired" if server_time(self._redis) - job.created_s > WINDOW_S else ""

    def _questions(self, job: Job) -> Questions:
        spec = job.spec
        responses = Responses(self._requests, DeadLetters(self._redis, self._requests))
        registry = Registry(self._redis, self._keys)
        return Questions(
            job.id,
            spec["user"],
            spec["endpoint"],
            responses,
            registry.sampling,
            registry.supports,
            self._max_chars,
        )

    # -- its end -------------------------------------------------------------------------------------------------

    def _conclude(self, job: Job, ledger: BatchLedger) -> None:
        progress = replace(_progress(ledger), finalizing_s=int(server_time(self._redis)))
        self._jobs.note(job.id, UNIT, progress.as_note())
        if not ledger.place.published:
            ledger.published(self._publish(job, ledger.output, "output"), self._publish(job, ledger.errors, "error"))
        ledger.let_go()
        place = ledger.place
        progress = replace(
            progress,
            state="done",
            expired=place.ended == "expired",
            output_file=place.output_file,
            error_file=place.error_file,
        )
        self._jobs.note(job.id, UNIT, progress.as_note())
        end = self._jobs.cancelled if place.ended == "cancelled" else self._jobs.finished
        end(job.id, f"{place.ended}: {place.answered:,} of {place.num_lines:,} lines answered, {place.failed:,} failed")

    def _publish(self, job: Job, path: Path, what: str) -> str:
        """The id of the file that the user finds; empty if nothing is in it. A repeat finds the first one."""
        if not path.stat().st_size:
            return ""
        file_id, user = made_id(job.created_s, job.id, what), job.spec["user"]
        with self._files.draft(user) as made, path.open("rb") as file:
            while block := file.read(COPY_BYTES):
                made.write(block)
            return self._files.publish(made, user, "batch_output", f"{job.id}_{what}.jsonl", file_id).id


def _progress(ledger: BatchLedger) -> BatchProgress:
    place = ledger.place
    return BatchProgress(
        records=place.number,
        of=place.num_lines,
        answered=place.answered,
        failed=place.failed,
        checked_s=place.checked_s,
    )


def _thread(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, name="feed", daemon=True).start()
