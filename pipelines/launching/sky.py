"""The one module that calls SkyPilot. Its methods and classes have our names.

    sky = SkyPilot()
    sky.enabled()                             # ["aws", "kubernetes"]
    request = sky.launch_job(task, "train-x", secrets)
    sky.managed_jobs("train-x")

Used by `pipelines/launching/sky_target.py` and `pipelines/command/machines.py`. SkyPilot is a service (`sky api
start`; on another machine, if SKYPILOT_API_SERVER_ENDPOINT says so) that goes on with a request when our process dies.
Importing SkyPilot costs two seconds and 150 MB, so the first call imports it. A request's body holds the plain values
of secrets: so this module reads only single fields of the service's answers and never logs an answer as a whole.

Every call raises our errors: ConfigurationError with the remedy if another try would fail too, else Unavailable.
"""

import contextlib
import copy
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from pipelines.launching.targets import RunState
from services.errors import ChatServerError, ConfigurationError, Unavailable

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
    "ImportError": (False, "install that cloud's part, such as `pip install 'skypilot[aws]'`, then run `sky check`"),
    "ApiServerConnectionError": (True, "start it with `sky api start`, or check SKYPILOT_API_SERVER_ENDPOINT"),
}
MAX_ERROR_CHARS = 1_500
NOT_MACHINES = ("file_mounts", "workdir")  # of a task: an estimate must not look for buckets
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
        except ChatServerError:
            raise
        except Exception as error:  # noqa: BLE001 - the service sends whatever was raised in it
            raise translated_error(error) from None

    return wrapped


class SkyPilot:
    """The API server that the environment names. The object has no state."""

    # -- what there is -------------------------------------------------------------------------------------------

    @_ours
    def enabled(self) -> list[str]:
        """Names of the clouds that are set up."""
        from sky.client import sdk

        return sorted(str(cloud).lower() for cloud in _get(sdk.enabled_clouds()))

    @_ours
    def estimate(self, config: Mapping[str, Any]) -> Estimate:
        """What a launch would choose now; starts nothing."""
        from sky.client import sdk
        from sky.utils import dag_utils

        machines = {name: value for name, value in config.items() if name not in NOT_MACHINES}
        task = _task(machines, {})
        log = io.StringIO()
        sdk.stream_and_get(sdk.optimize(dag_utils.convert_entrypoint_to_dag(task)), output_stream=log)
        table = plain(log.getvalue()).strip()
        return Estimate(*chosen(table), table)

    # -- launching -----------------------------------------------------------------------------------------------

    @_ours
    def launch_cluster(
        self, config: Mapping[str, Any], name: str, secrets: Mapping[str, str], idle_min: int | None
    ) -> str:
        """The request that makes the cluster and runs the task; with `idle_min` it ends itself that long after."""
        import sky

        task = _task(config, secrets)
        return str(sky.launch(task, cluster_name=name, idle_minutes_to_autostop=idle_min, down=idle_min is not None))

    @_ours
    def launch_job(self, config: Mapping[str, Any], name: str, secrets: Mapping[str, str]) -> str:
        """The request that hands the task to a controller, which recovers it."""
        import sky

        return str(sky.jobs.launch(_task(config, secrets), name=name))

    @_ours
    def request(self, request: str) -> Request | None:
        """None for one that the server has forgotten."""
        import sky

        found = sky.api_status(request_ids=[request])
        return _request(found[0]) if found else None

    @_ours
    def cluster_launches(self, name: str) -> list[Request]:
        """All launches of this cluster that the server remembers, the newest first."""
        import sky

        found = sky.api_status(all_status=True, cluster_name=name)
        return [_request(each) for each in found if each.name == "sky.launch" and each.cluster_name == name]

    @_ours
    def job_launches(self, name: str) -> list[Request]:
        """Launches of managed jobs of this name that go on."""
        import sky

        found = sky.api_status()
        return [_request(each) for each in found if each.name == "sky.jobs.launch" and _launched_name(each) == name]

    def failure(self, request: str) -> ChatServerError:
        """Why a request failed."""
        try:
            _get(request)
        except Exception as error:  # noqa: BLE001 - whatever was raised in the service
            return translated_error(error)
        return Unavailable("SkyPilot does not say why the launch failed; submit it again")

    @_ours
    def cancel_request(self, request: str) -> None:
        import sky

        _get(sky.api_cancel(request))

    # -- clusters ------------------------------------------------------------------------------------------------

    @_ours
    def clusters(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """SkyPilot's status of each cluster of this name, or of all; those of managed jobs are not among them."""
        import sky

        found = _get(sky.status(cluster_names=list(names) if names is not None else None))
        return {each["name"]: each["status"].value for each in found}

    @_ours
    def cluster_jobs(self, name: str) -> list[SkyJob]:
        """The jobs of a cluster, oldest first; none for one that is not there, or not up yet."""
        import sky

        try:
            found = _get(sky.queue(name, all_users=True))
        except Exception as error:
            if _is(error, "ClusterDoesNotExist", "ClusterNotUpError"):
                return []
            raise
        jobs = [_cluster_job(record) for record in found]
        return sorted(jobs, key=lambda job: job.id)

    @_ours
    def cancel_cluster_jobs(self, name: str, ids: Sequence[int]) -> None:
        import sky

        with _no_cluster():
            _get(sky.cancel(name, job_ids=list(ids)))

    @_ours
    def down(self, name: str) -> None:
        """Give back the machines; nothing happens if there are none."""
        import sky

        with _no_cluster():
            _get(sky.down(name))

    @_ours
    def cluster_log(self, name: str, job: int) -> Log:
        """From its beginning, with SkyPilot's decorations."""
        import sky

        with _no_cluster():
            return spoken(sky.tail_logs(name, job, follow=False, preload_content=False))
        return Log([])

    # -- managed jobs --------------------------------------------------------------------------------------------

    @_ours
    def managed_jobs(self, name: str | None = None) -> dict[str, list[SkyJob]]:
        """By name, oldest first; of one name or of all that have not ended."""
        import sky

        try:
            answer = _get(sky.jobs.queue_v2(refresh=False, skip_finished=name is None, name_match=name, fields=None))
        except Exception as error:
            if _is(error, "ClusterNotUpError"):  # no controller: nobody ever launched one, or it sleeps
                return {}
            raise
        found: dict[str, list[SkyJob]] = {}
        for record in sorted(answer[0], key=lambda record: record["job_id"]):
            found.setdefault(record["job_name"], []).append(_managed_job(record))
        return {each: jobs for each, jobs in found.items() if name in (None, each)}

    @_ours
    def cancel_jobs(self, ids: Sequence[int]) -> None:
        import sky

        _get(sky.jobs.cancel(job_ids=list(ids)))

    @_ours
    def job_log(self, job: int) -> Log:
        """As `cluster_log`, of the machines on which it runs now: it begins anew after a recovery.

        While there are none, SkyPilot keeps the caller waiting: ask for a job that runs or has ended.
        """
        import sky

        with _no_cluster():
            return spoken(sky.jobs.tail_logs(job_id=job, follow=False, preload_content=False))
        return Log([])

    # -- money ---------------------------------------------------------------------------------------------------

    @_ours
    def cost_usd(self, belongs: Callable[[str], bool]) -> float | None:
        """Of all clusters so far whose name belongs, ended ones included; None where prices are not known."""
        from sky.client import sdk

        costs = [float(each["total_cost"] or 0) for each in _get(sdk.cost_report()) if belongs(each["name"])]
        return round(sum(costs), 4) or None


# -- errors -----------------------------------------------------------------------------------------------------------


def translated_error(error: Exception) -> ChatServerError:
    """A sentence and a remedy for whatever SkyPilot raised."""
    said = _said(error)
    for kind in type(error).__mro__:
        if kind.__name__ in REMEDIES:
            again, remedy = REMEDIES[kind.__name__]
            return (Unavailable if again else ConfigurationError)(f"SkyPilot: {said}", remedy=remedy)
    if isinstance(error, ValueError | TypeError):
        return ConfigurationError(f"SkyPilot refuses the task: {said}", remedy="mend its file in infra/sky")
    return Unavailable(f"SkyPilot: {type(error).__name__}: {said}")


def _said(error: Exception) -> str:
    """The message in one line, without colours; the end of a long one, where the reason stands."""
    text = " ".join(plain(str(error)).split()).rstrip(".")
    return ("…" + text[-MAX_ERROR_CHARS:]) if len(text) > MAX_ERROR_CHARS else (text or type(error).__name__)


def _is(error: Exception, *names: str) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


@contextlib.contextmanager
def _no_cluster() -> Iterator[None]:
    """A cluster that is not there is no error for what only takes away or reads."""
    try:
        yield
    except Exception as error:
        if not _is(error, "ClusterDoesNotExist", "ClusterNotUpError"):
            raise


# -- what SkyPilot says -----------------------------------------------------------------------------------------------


def _get(request: Any) -> Any:
    from sky.client import sdk

    return sdk.get(request)


def known_state(states: Mapping[str, RunState], status: str) -> RunState:
    if status not in states:
        raise ConfigurationError(
            f"SkyPilot says {status}, which is none of {', '.join(states)}",
            remedy="install the one of requirements.txt",
        )
    return states[status]


def _request(payload: Any) -> Request:
    return Request(payload.request_id, known_state(REQUEST_STATES, payload.status))


def _launched_name(payload: Any) -> str | None:
    """Of a managed job's launch: the one thing that is read of a body."""
    body = orjson.loads(payload.request_body or "null")
    return body.get("name") if isinstance(body, dict) else None


def _cluster_job(record: Any) -> SkyJob:
    status = record["status"].value
    state = known_state(JOB_STATES, status)
    return SkyJob(record["job_id"], status, state, record["submitted_at"], record["end_at"] or 0.0)


def _managed_job(record: Any) -> SkyJob:
    status = record["status"].value
    return SkyJob(
        record["job_id"],
        status,
        known_state(MANAGED_STATES, status),
        record["submitted_at"] or 0.0,
        record["end_at"] or 0.0,
        record["recovery_count"] or 0,
        record["failure_reason"] or "",
    )


def _task(config: Mapping[str, Any], secrets: Mapping[str, str]) -> Any:
    """SkyPilot's task. Its reading changes what it is given, so it gets a copy."""
    import sky

    task = sky.Task.from_yaml_config(copy.deepcopy(dict(config)))
    task.update_secrets(dict(secrets))
    return task


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
