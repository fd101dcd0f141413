"""SkyPilot under our names. Its methods and classes are what the rest of the house knows of it.

    sky = SkyPilot()
    sky.estimate(task)
    request = sky.launch_job(task, "train-x", secrets)
    sky.managed_jobs("train-x")

Used by `pipelines/launching/sky_target.py` and `pipelines/command/machines.py`. SkyPilot runs in an environment and a
process of its own (`sky_pipe.py` and `sky_process.py`), and is a service besides (`sky api start`; on another machine,
if SKYPILOT_API_SERVER_ENDPOINT says so) that goes on with a request when both processes die. This module says what the
answers mean: its states, its errors, its logs, its table of prices.

Every call raises our errors: ConfigurationError with the remedy if another try would fail too, else Unavailable.
"""

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipelines.launching.sky_pipe import SkyError, SkyPipe
from pipelines.launching.targets import RunState
from services.errors import ChatServerError, ConfigurationError, Unavailable
from services.machine.environments import Environment

# Every member of SkyPilot's enums, by its value. A test walks the enums, so that a new member is noticed.
REQUEST_STATES: dict[str, RunState] = {
    "PENDING": "pending",
    "WAITING": "pending",
    "RUNNING": "starting",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}
JOB_STATES: dict[str, RunState] = {
    "INIT": "starting",
    "PENDING": "starting",
    "SETTING_UP": "starting",
    "RUNNING": "running",
    "FAILED_DRIVER": "failed",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
    "FAILED_SETUP": "failed",
    "CANCELLED": "cancelled",
}
MANAGED_STATES: dict[str, RunState] = {
    "PENDING": "pending",
    "SUBMITTED": "pending",
    "STARTING": "starting",
    "RUNNING": "running",
    "WINDING_DOWN": "running",
    "RECOVERING": "recovering",
    "CANCELLING": "running",
    "SUCCEEDED": "finished",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
    "FAILED_SETUP": "failed",
    "FAILED_PRECHECKS": "failed",
    "FAILED_NO_RESOURCE": "failed",
    "FAILED_CONTROLLER": "failed",
}
CLUSTER_STATES: dict[str, RunState] = {  # of a cluster on which no job is known
    "PENDING": "pending",
    "INIT": "starting",
    "UP": "starting",
    "AUTOSTOPPING": "failed",
    "STOPPED": "failed",
}

# What a failure of a job means for people: a sentence, and what to do.
FAILURES: dict[str, tuple[str, str]] = {
    "FAILED": ("the training program failed", "its log says why; mend that and submit it again"),
    "FAILED_SETUP": (
        "the machine could not be set up",
        "its log says what the setup of its file in infra/sky did not find; submit it again",
    ),
    "FAILED_DRIVER": (
        "SkyPilot's driver on the machine died, mostly for lack of memory",
        "ask for more with `memory:` in its file of infra/sky, and submit it again",
    ),
    "FAILED_PRECHECKS": (
        "SkyPilot refuses the task before any machine is started",
        "`sky check` shows which cloud lacks what; mend it and submit it again",
    ),
    "FAILED_NO_RESOURCE": (
        "no machine of this kind is to be had",
        "ask for others with --gpus or --infra, or submit it again later",
    ),
    "FAILED_CONTROLLER": (
        "SkyPilot's job controller failed",
        "`sky jobs logs --controller` shows why; submit it again, it goes on from its checkpoint",
    ),
}
SET_UP = "set one up, such as with `aws configure` or `gcloud auth application-default login`, then run `sky check`"
# SkyPilot's errors by the name of their class or a base of it, first match: whether another try may help, and a remedy.
REMEDIES: dict[str, tuple[bool, str]] = {
    "NoCloudAccessError": (False, f"no cloud is set up here: {SET_UP}"),
    "InvalidCloudCredentials": (False, f"its credentials are not valid: {SET_UP}"),
    "CloudUserIdentityError": (False, f"who you are on the cloud cannot be told: {SET_UP}"),
    "ClusterOwnerIdentityMismatchError": (False, "switch to the account that made the cluster"),
    "InvalidCloudConfigs": (False, "`sky check` says what is missing"),
    "ResourcesUnavailableError": (
        False,
        "ask for what `sky show-gpus` lists, with --gpus, --infra or no --spot",
    ),
    "ResourcesMismatchError": (
        False,
        "its cluster has other machines: `chatserver train down` the job first",
    ),
    "NotSupportedError": (False, "choose another place with --infra, or leave out what it cannot do (such as --spot)"),
    "ProvisionUnsupportedError": (False, "choose another place with --infra"),
    "InvalidSkyPilotConfigError": (False, "mend the field in ~/.sky/config.yaml or in the file of infra/sky"),
    "InvalidClusterNameError": (False, "take a shorter name of letters, digits and hyphens"),
    "ProvisionPrechecksError": (False, "`sky check` says what is missing"),
    "StorageError": (False, "check that the bucket exists and that `sky check` lists its cloud under storage"),
    "StorageSpecError": (False, "check the bucket's URL, such as s3://my-bucket/my-run"),
    "PermissionDeniedError": (False, "ask who runs the API server for access"),
    "UserRequestRejectedByPolicy": (False, "the policy of the API server forbids it: ask who runs it"),
    "ApiServerAuthenticationError": (False, "run `sky api login`"),
    "APIVersionMismatchError": (False, "install the SkyPilot of requirements.txt on both sides, then `sky api stop`"),
    "APINotSupportedError": (False, "install the SkyPilot of requirements.txt on the API server"),
    "ImportError": (False, "install that cloud's part, such as `.venv-sky/bin/pip install 'skypilot[aws]'`"),
    "ApiServerConnectionError": (True, "start it with `sky api start`, or check SKYPILOT_API_SERVER_ENDPOINT"),
}
MAX_ERROR_CHARS = 1_500
# What SkyPilot says around the log of a task.
LOG_BEGINS = "Waiting for task resources on "
LOG_BROKE_OFF = "The job cluster is preempted or failed"
LOG_ENDS = "Job finished (status: "

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SPEAKER = re.compile(r"^\([^()]*\bpid=\d+[^()]*\) ?")  # (setup pid=7), (name, pid=7), (head, rank=0, pid=7)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Request:
    """The state of a request to the API server, without the request's body."""

    id: str
    state: RunState


@dataclass(frozen=True)
class SkyJob:
    """A job on a cluster, or a managed one. `status` is SkyPilot's; times in seconds, 0 for what has not happened."""

    id: int
    status: str
    state: RunState
    submitted_s: float
    ended_s: float = 0.0
    recoveries: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Estimate:
    """What the optimizer would choose. `usd_per_hour` of all nodes; None if there is no price, as on Slurm."""

    choice: str
    usd_per_hour: float | None
    table: str


@dataclass(frozen=True)
class Log:
    """The whole lines that a task has printed so far. `ended`: the task will print no more."""

    lines: list[str]
    ended: bool = False


def _ours(call: Callable[..., Result]) -> Callable[..., Result]:
    """With SkyPilot's errors translated."""

    @functools.wraps(call)
    def wrapped(*arguments: Any, **named: Any) -> Result:
        try:
            return call(*arguments, **named)
        except SkyError as error:
            raise translated_error(error) from None

    return wrapped


class SkyPilot:
    """The API server that the environment names. Objects may share a pipe, and with it SkyPilot's process."""

    def __init__(self, pipe: SkyPipe | None = None) -> None:
        self._pipe = pipe or SkyPipe(Environment("sky").python)

    @_ours
    def estimate(self, config: Mapping[str, Any]) -> Estimate:
        """What a launch would choose now; starts nothing, no API server either."""
        table = plain("".join(self._pipe.lines("optimize", config=config))).strip()
        return Estimate(*chosen(table), table)

    # -- launching -----------------------------------------------------------------------------------------------

    @_ours
    def launch_cluster(
        self, config: Mapping[str, Any], name: str, secrets: Mapping[str, str], idle_min: int | None
    ) -> str:
        """The request that makes the cluster and runs the task; with `idle_min` it ends itself that long after."""
        return str(self._pipe.ask("launch_cluster", config=config, name=name, secrets=secrets, idle_min=idle_min))

    @_ours
    def launch_job(self, config: Mapping[str, Any], name: str, secrets: Mapping[str, str]) -> str:
        """The request that hands the task to a controller, which recovers it."""
        return str(self._pipe.ask("launch_job", config=config, name=name, secrets=secrets))

    @_ours
    def request(self, request: str) -> Request | None:
        """None for one that the server has forgotten."""
        found = self._pipe.ask("request", id=request)
        return _request(found[0]) if found else None

    @_ours
    def cluster_launches(self, name: str) -> list[Request]:
        """All launches of this cluster that the server remembers, the newest first."""
        return [_request(each) for each in self._pipe.ask("cluster_launches", name=name)]

    @_ours
    def job_launches(self, name: str) -> list[Request]:
        """Launches of managed jobs of this name that go on."""
        return [_request(each) for each in self._pipe.ask("job_launches", name=name)]

    def failure(self, request: str) -> ChatServerError:
        """Why a request failed."""
        try:
            self._pipe.ask("result", id=request)
        except SkyError as error:
            return translated_error(error)
        return Unavailable("SkyPilot does not say why the launch failed; submit it again")

    @_ours
    def cancel_request(self, request: str) -> None:
        self._pipe.ask("cancel_request", id=request)

    # -- clusters ------------------------------------------------------------------------------------------------

    @_ours
    def clusters(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """SkyPilot's status of each cluster of this name, or of all; those of managed jobs are not among them."""
        found: dict[str, str] = self._pipe.ask("clusters", names=names)
        return found

    @_ours
    def cluster_jobs(self, name: str) -> list[SkyJob]:
        """The jobs of a cluster, oldest first; none for one that is not there, or not up yet."""
        with _no_cluster():
            return sorted(map(_cluster_job, self._pipe.ask("cluster_jobs", name=name)), key=lambda job: job.id)
        return []

    @_ours
    def cancel_cluster_jobs(self, name: str, ids: Sequence[int]) -> None:
        with _no_cluster():
            self._pipe.ask("cancel_cluster_jobs", name=name, ids=ids)

    @_ours
    def down(self, name: str) -> None:
        """Give back the machines; nothing happens if there are none."""
        with _no_cluster():
            self._pipe.ask("down", name=name)

    @_ours
    def cluster_log(self, name: str, job: int) -> Log:
        """From its beginning, with SkyPilot's decorations."""
        with _no_cluster(), contextlib.closing(self._pipe.lines("cluster_log", name=name, job=job)) as chunks:
            return spoken(chunks)
        return Log([])

    # -- managed jobs --------------------------------------------------------------------------------------------

    @_ours
    def managed_jobs(self, name: str | None = None) -> dict[str, list[SkyJob]]:
        """By name, oldest first; of one name or of all that have not ended."""
        try:
            records = self._pipe.ask("managed_jobs", name=name)
        except SkyError as error:
            if "ClusterNotUpError" in error.kinds:  # no controller: nobody ever launched one, or it sleeps
                return {}
            raise
        found: dict[str, list[SkyJob]] = {}
        for record in sorted(records, key=lambda record: record["job_id"]):
            found.setdefault(record["job_name"], []).append(_managed_job(record))
        return {each: jobs for each, jobs in found.items() if name in (None, each)}

    @_ours
    def cancel_jobs(self, ids: Sequence[int]) -> None:
        self._pipe.ask("cancel_jobs", ids=ids)

    @_ours
    def job_log(self, job: int) -> Log:
        """As `cluster_log`, of the machines on which it runs now: it begins anew after a recovery.

        While there are none, SkyPilot keeps the caller waiting: ask for a job that runs or has ended.
        """
        with _no_cluster(), contextlib.closing(self._pipe.lines("job_log", job=job)) as chunks:
            return spoken(chunks)
        return Log([])

    # -- money ---------------------------------------------------------------------------------------------------

    @_ours
    def cost_usd(self, belongs: Callable[[str], bool]) -> float | None:
        """Of all clusters so far whose name belongs, ended ones included; None where prices are not known."""
        costs = [cost for name, cost in self._pipe.ask("costs") if belongs(name)]
        return round(sum(costs), 4) or None


# -- errors -----------------------------------------------------------------------------------------------------------


def translated_error(error: SkyError) -> ChatServerError:
    """A sentence and a remedy for whatever SkyPilot raised."""
    said = _said(error)
    for kind in error.kinds:
        if kind in REMEDIES:
            again, remedy = REMEDIES[kind]
            return (Unavailable if again else ConfigurationError)(f"SkyPilot: {said}", remedy=remedy)
    if {"ValueError", "TypeError"} & set(error.kinds):
        return ConfigurationError(f"SkyPilot refuses the task: {said}", remedy="mend its file in infra/sky")
    return Unavailable(f"SkyPilot: {error.kinds[0]}: {said}")


def _said(error: SkyError) -> str:
    """The message in one line, without colours; the end of a long one, where the reason stands."""
    text = " ".join(plain(error.words).split()).rstrip(".")
    return ("…" + text[-MAX_ERROR_CHARS:]) if len(text) > MAX_ERROR_CHARS else (text or error.kinds[0])


@contextlib.contextmanager
def _no_cluster() -> Iterator[None]:
    """A cluster that is not there is no error for what only takes away or reads."""
    try:
        yield
    except SkyError as error:
        if not {"ClusterDoesNotExist", "ClusterNotUpError"} & set(error.kinds):
            raise


# -- what SkyPilot says -----------------------------------------------------------------------------------------------


def known_state(states: Mapping[str, RunState], status: str) -> RunState:
    if status not in states:
        raise ConfigurationError(
            f"SkyPilot says {status}, which is none of {', '.join(states)}",
            remedy="install the one of requirements.txt",
        )
    return states[status]


def _request(record: Mapping[str, str]) -> Request:
    return Request(record["id"], known_state(REQUEST_STATES, record["status"]))


def _cluster_job(record: Mapping[str, Any]) -> SkyJob:
    state = known_state(JOB_STATES, record["status"])
    return SkyJob(record["job_id"], record["status"], state, record["submitted_at"], record["end_at"] or 0.0)


def _managed_job(record: Mapping[str, Any]) -> SkyJob:
    return SkyJob(
        record["job_id"],
        record["status"],
        known_state(MANAGED_STATES, record["status"]),
        record["submitted_at"] or 0.0,
        record["end_at"] or 0.0,
        record["recovery_count"] or 0,
        record["failure_reason"] or "",
    )


def plain(text: str) -> str:
    return _COLOUR.sub("", text)


def spoken(chunks: Iterable[str | None]) -> Log:
    """What the task printed, without what SkyPilot says itself, which changes from call to call.

    A read that breaks off is tried again by SkyPilot in the same answer, from the beginning. It may also wait there for
    other machines, however long, and tell their log: that is left to the next call.
    """
    lines: list[str] = []
    ended = False
    for line in map(plain, _whole_lines(chunks)):
        if speaker := _SPEAKER.match(line):  # of a progress bar, what stood there last
            lines.append(speaker[0] + line[speaker.end() :].rstrip("\r").rpartition("\r")[2])
        elif LOG_BROKE_OFF in line:
            break
        elif LOG_BEGINS in line:
            lines, ended = [], False
        elif LOG_ENDS in line:
            ended = True
    return Log(lines, ended)


def _whole_lines(chunks: Iterable[str | None]) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + (chunk or "")).split("\n")
        yield from lines


def without_speaker(line: str) -> str:
    return _SPEAKER.sub("", line, count=1)


def chosen(table: str) -> tuple[str, float | None]:
    """The choice and its price in the optimizer's table, whose columns are found by their heads."""
    lines = table.splitlines()
    heads = next((line for line in lines if "CHOSEN" in line and "COST" in line), "")
    row = next((line for line in lines if "✔" in line), "")
    if not heads or not row:
        return "", None
    starts = [match.start() for match in re.finditer(r"\S+(?: \S+)*", heads)] + [len(heads)]
    cells = {heads[a:b].strip(): row[a:b].strip() for a, b in itertools.pairwise(starts)}
    price = float(cells.get("COST ($)") or 0)
    words = (cells.get(name, "") for name in ("INFRA", "INSTANCE", "GPUS"))
    return " ".join(word for word in words if word and word != "-"), price or None
