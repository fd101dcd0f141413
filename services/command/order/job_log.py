"""Shows a job's log and progress in a terminal until the job ends, for `jobs logs -f` and `clean submit --wait`."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from services.command.plain import without_controls
from services.errors import Gone, Unavailable

if TYPE_CHECKING:
    from redis import Redis

    from services.jobs.jobs import Job, JobProgress, Jobs

POLL_S = 0.5


def print_log(jobs: "Jobs", jid: str, after: str = "0") -> str:
    """Print the lines after an id. Returns the id of the last line."""
    while lines := jobs.tail(jid, after):
        for line_id, time_s, line in lines:
            after = line_id
            print(f"{time.strftime('%H:%M:%S', time.localtime(time_s))} {without_controls(line)}", flush=True)
    return after


def follow(jobs: "Jobs", redis: "Redis", jid: str, submit_again: "Callable[[], Job] | None" = None) -> int:
    """Show the job until it ends. Exit code 0 if it finished. Redis may go away meanwhile, or forget the job."""
    from services.connection.connect import server_time, translated
    from services.jobs.jobs import progress_of

    after, bar = "0", _Bar()
    while True:
        try:
            with translated():
                job = jobs.get(jid)
                bar.clear()
                after = print_log(jobs, jid, after)
                if job.ended:
                    return _end(job)
                units = jobs.units(jid)
                bar.say(stopping_line(job, units) or progress_line(job, progress_of(job, units, server_time(redis))))
        except Unavailable as error:
            bar.say(f"waiting for Redis: {error}")
        except Gone:
            if submit_again is None:
                raise
            submit_again()
            after = "0"
        time.sleep(POLL_S)


def _end(job: "Job") -> int:
    if job.error:
        print(f"chatserver: {without_controls(job.error)}", file=sys.stderr)
    elif job.state != "finished":
        print(f"chatserver: job {job.id} is {job.state}", file=sys.stderr)
    return 0 if job.state == "finished" else 1


class _Bar:
    """The progress in the last line of a terminal. Prints nothing into a file or a pipe."""

    def __init__(self) -> None:
        self._shown = ""

    def say(self, line: str) -> None:
        if sys.stderr.isatty():
            self.clear()
            print(line, end="", flush=True, file=sys.stderr)
            self._shown = line

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[2K", end="", flush=True, file=sys.stderr)
            self._shown = ""


def stopping_line(job: "Job", units: "Mapping[str, Mapping[str, Any]]") -> str:
    """What a cancelled job does before it ends; empty for any other job."""
    from services.jobs.training_progress import UNIT, TrainingProgress

    if not job.cancelling:
        return ""
    return (
        TrainingProgress.from_note(units.get(UNIT, {})).stopping if job.kind == "train" else f"job {job.id} ends soon"
    )


def progress_line(job: "Job", progress: "JobProgress") -> str:
    """How far a job is, in one line."""
    from services.command.plain import duration_text
    from services.jobs.record_counts import totals_of

    state = "ending" if job.cancelling else job.state
    if job.state == "finished" and (counts := totals_of(progress.steps)):
        return f"{state}: {counts}"
    if not progress.num_units:
        read = sum(step.records_in for step in progress.steps if step.label == "read")
        return f"{state}: {read:,} records read" if read else state
    eta = duration_text(None if progress.eta_s is None else round(progress.eta_s))
    return f"{state}: {progress.fraction:.0%}, {progress.num_done} of {progress.num_units} units{eta}"
