"""Fine-tuning through SkyPilot: a managed job, which recovers on spot machines, else a cluster for this run alone.

    target = SkyTarget()
    remote = target.submit(run)         # {"target": "sky", "kind": "managed"|"cluster", "name": …, "request": …}

Used by `pipelines/celery/training_tasks.py`. The job or cluster has the name of the run, and the target finds it by
this name alone. If the name exists already (a launch that the API server still works on, a job, a launch that failed),
the target takes it over instead of launching. Two processes of one machine take turns. If two machines launch at once,
the older job is the run, and `poll` cancels the younger.
"""

import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pipelines.launching.sky import CLUSTER_STATES, FAILURES, Log, SkyJob, SkyPilot, known_state, without_speaker
from pipelines.launching.sky_task import task_for
from pipelines.launching.targets import ENDED, Outcome, Run
from services.errors import Unavailable
from services.machine.files import lock

OUR_NAMES = re.compile(r"^train-.*-[0-9a-f]{8}$")  # as `run_name` makes them
IDLE_MIN = 15  # after which a cluster ends itself, should nobody be left to end it
STAYING = ("slurm", "ssh")  # where machines are not started and ended
SPOKE = ("SUCCEEDED", "FAILED", "FAILED_SETUP")  # how jobs end whose log has an end
LATE_S = 300.0  # after its end, until the controller has fetched its log from the machine, at the latest


class SkyTarget:
    """`make_task` makes SkyPilot's task for a run. `secrets` are stored nowhere but in the task."""

    def __init__(self, sky: SkyPilot | None = None, make_task: Callable[[Run], dict[str, Any]] = task_for) -> None:
        self._sky = sky or SkyPilot()
        self._make_task = make_task
        self._polled: dict[str, list[SkyJob]] = {}  # by the run: `logs` need not ask what `poll` asked just before

    # -- the contract --------------------------------------------------------------------------------------------

    def submit(self, run: Run) -> dict[str, Any]:
        kind = "managed" if run.spot else "cluster"
        remote = {"target": "sky", "kind": kind, "name": run.name, "request": "", "submitted_s": time.time()}
        with lock(launches_lock()):
            request = self._launched(kind, run.name)
            return {**remote, "request": self._launch(run) if request is None else request}

    def poll(self, remote: Mapping[str, Any]) -> Outcome:
        jobs = self._polled[remote["name"]] = self._jobs(remote)
        if not jobs:
            return self._without_job(remote)
        job, *younger = jobs
        self._end(remote, younger)
        return self._outcome(remote, job)

    def logs(self, remote: Mapping[str, Any], cursor: str) -> tuple[list[str], str]:
        """The cursor is the number of lines taken and the sum of the first one: other machines begin another log."""
        jobs = self._polled[remote["name"]] if remote["name"] in self._polled else self._jobs(remote)
        managed = remote["kind"] == "managed"
        if not jobs or (managed and jobs[0].state not in (ENDED | {"running"})):
            return [], cursor
        log = self._sky.job_log(jobs[0].id) if managed else self._sky.cluster_log(remote["name"], jobs[0].id)
        if _lacks_its_end(log, jobs[0]):
            raise Unavailable(f"the end of the log of {remote['name']} is not there yet")
        return new_lines(log.lines, cursor)

    def cancel(self, remote: Mapping[str, Any]) -> None:
        if remote["request"]:
            request = self._sky.request(remote["request"])
            if request and request.state not in ENDED:
                self._sky.cancel_request(remote["request"])
        self._end(remote, self._jobs(remote))

    def down(self, remote: Mapping[str, Any]) -> None:
        self.cancel(remote)  # the controller of a managed job gives back its machines itself
        if remote["kind"] == "cluster":
            self._sky.down(remote["name"])

    def orphans(self, owned: Collection[str]) -> list[dict[str, Any]]:
        """Handles of clusters and managed jobs with a name of ours that no unfinished job owns."""
        managed = self._sky.managed_jobs()
        found = [("cluster", name) for name in self._sky.clusters()] + [("managed", name) for name in managed]
        return [
            {"target": "sky", "kind": kind, "name": name, "request": "", "submitted_s": 0.0}
            for kind, name in found
            if OUR_NAMES.match(name) and name not in owned
        ]

    def cost_usd(self, remote: Mapping[str, Any]) -> float | None:
        """So far, of all clusters that the run had; None where prices are not known, as on Slurm."""
        name = str(remote["name"])
        managed = re.compile(rf"{re.escape(name)}-\d+$")  # SkyPilot calls the clusters of a managed job NAME-ID
        if remote["kind"] == "managed":
            return self._sky.cost_usd(lambda cluster: managed.match(cluster) is not None)
        return self._sky.cost_usd(lambda cluster: cluster == name)

    # -- launching -----------------------------------------------------------------------------------------------

    def _launched(self, kind: str, name: str) -> str | None:
        """The request that launched it already, "" if only its job is known; None if it is to be launched.

        Requests are asked first: one that ends meanwhile has left its job.
        """
        if kind == "managed":
            requests, jobs = self._sky.job_launches(name), self._sky.managed_jobs(name).get(name, [])
        else:
            requests, jobs = self._sky.cluster_launches(name), []
        if requests:
            return requests[0].id
        if kind == "cluster" and name in self._sky.clusters([name]):
            jobs = self._sky.cluster_jobs(name)
        return "" if jobs else None

    def _launch(self, run: Run) -> str:
        task = self._make_task(run)
        if run.spot:
            return self._sky.launch_job(task, run.name, run.secrets)
        infra = str(task.get("resources", {}).get("infra") or "")
        idle_min = None if infra.startswith(STAYING) else IDLE_MIN
        return self._sky.launch_cluster(task, run.name, run.secrets, idle_min)

    # -- how it is -----------------------------------------------------------------------------------------------

    def _jobs(self, remote: Mapping[str, Any]) -> list[SkyJob]:
        """The run and, rarely, launches of it that came too late; oldest first."""
        if remote["kind"] == "managed":
            return self._sky.managed_jobs(remote["name"]).get(remote["name"], [])
        return self._sky.cluster_jobs(remote["name"])

    def _end(self, remote: Mapping[str, Any], jobs: list[SkyJob]) -> None:
        ids = [job.id for job in jobs if job.state not in ENDED and job.status != "CANCELLING"]
        if ids and remote["kind"] == "managed":
            self._sky.cancel_jobs(ids)
        elif ids:
            self._sky.cancel_cluster_jobs(remote["name"], ids)

    def _without_job(self, remote: Mapping[str, Any]) -> Outcome:
        """There is no job yet, or no longer."""
        seconds = max(time.time() - remote["submitted_s"], 0.0)
        request = self._sky.request(remote["request"]) if remote["request"] else None
        if request and request.state == "failed":
            why = self._sky.failure(request.id)
            return Outcome("failed", why.message, why.remedy, seconds=seconds)
        if request and request.state != "finished":
            return Outcome(request.state, seconds=seconds)
        if self._jobs(remote):  # the launch ended between the two questions
            return Outcome("starting", seconds=seconds)
        status = self._sky.clusters([remote["name"]]).get(remote["name"]) if remote["kind"] == "cluster" else None
        if status is not None and (state := known_state(CLUSTER_STATES, status)) != "failed":
            return Outcome(state, seconds=seconds)
        return Outcome("failed", *_gone(remote), seconds=seconds)

    def _outcome(self, remote: Mapping[str, Any], job: SkyJob) -> Outcome:
        message, remedy = FAILURES.get(job.status, ("", ""))
        if job.status == "CANCELLING":
            message = "is being cancelled"
        elif job.reason and job.state in ("failed", "recovering"):
            message = f"{message}: {job.reason}" if message else job.reason
        return Outcome(
            job.state,
            message,
            remedy,
            recoveries=job.recoveries,
            cost_usd=self.cost_usd(remote),
            seconds=max((job.ended_s or time.time()) - job.submitted_s, 0.0),
        )


def _lacks_its_end(log: Log, job: SkyJob) -> bool:
    return job.status in SPOKE and not log.ended and time.time() - job.ended_s < LATE_S


def new_lines(lines: list[str], cursor: str) -> tuple[list[str], str]:
    """What a log has more than at the cursor; all of it, if it is not the log that was read before.

    A log is known by its first line, which names a process and a time: `infra/sky/install.sh` sees to it. A read that
    broke off has fewer lines than there were, and tells nothing.
    """
    if not lines:  # just now: the machines are taken away
        return [], cursor
    taken, _, first = cursor.partition(":")
    checksum = format(zlib.crc32(lines[0].encode()), "08x")
    num_taken = int(taken) if first == checksum else 0
    fresh = [without_speaker(line) for line in lines[num_taken:]]
    return fresh, f"{num_taken + len(fresh)}:{checksum}"


def launches_lock() -> Path:
    """One process of this user and machine at a time looks and launches."""
    return Path(tempfile.gettempdir()) / f"chatserver-launches-{os.getuid()}.lock"


def _gone(remote: Mapping[str, Any]) -> tuple[str, str]:
    if remote["kind"] == "cluster":
        return (
            f"the machines of cluster {remote['name']} are gone, and with them how the training ended",
            "submit it again, it goes on from its checkpoint; with --spot such machines are replaced",
        )
    return f"SkyPilot knows no managed job {remote['name']}", "submit it again, it goes on from its checkpoint"
