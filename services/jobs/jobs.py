"""The jobs in Redis, which run for minutes to hours: their specs, their progress, their logs.

    jobs = Jobs(redis, Keys(settings.namespace))
    jobs.submit("july", "clean", "july.json", {"recipe": text, "inputs": ["/data/july.json"], "out": "/data/july", …})
    progress_of(jobs.get("july"), jobs.units("july"), server_time(redis)).fraction

The web app and the command submit, show and cancel jobs; `pipelines/celery/` does the work and writes the progress. A
job is `submitted`, then `running`, then `finished`, `failed` or `cancelled`. A failed or cancelled job can be submitted
again. The results are in the job's folder: nothing here decides whether work is done.
"""

import hmac
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis import Redis

from services.connection.connect import server_time
from services.errors import Conflict, Gone, InvalidRequest
from services.jobs.owner_lists import OwnerLists
from services.jobs.scripts import script
from services.jobs.signature import signature
from services.settings import variable_of
from services.wire.keys import Keys, check_name
from services.wire.messages import TERMINAL

LOG_LINES = 2_000
MAX_LINE_CHARS = 16_384
TTL_S = 30 * 86_400  # after its end
AT_ONCE = 200  # jobs that are read in one round trip
OWNED_KINDS = (b"batch", b"train")  # a job of these may be one user's alone
ORDER = "fine_tuning"  # field of a fine-tuning's spec: what a program ordered through `/v1`
REMOTE = "remote of train"  # what is signed beside jobs; no kind of a job has a space

_SUBMIT, _MOVE, _CANCEL, _REMOVE = script("submit"), script("move"), script("cancel"), script("remove")
_NOTE, _PLAN, _LOG = script("note"), script("plan"), script("log")
_ATTACH, _FOLLOW, _SIGN = script("attach"), script("follow"), script("sign")


@dataclass(frozen=True)
class Job:
    """One job as it is now. Times are seconds by the clock of Redis; 0 means that it has not happened."""

    id: str
    kind: str
    name: str
    state: str
    spec: dict[str, Any]
    created_s: float
    started_s: float = 0.0
    ended_s: float = 0.0
    error: str = ""
    cancelling: bool = False
    num_units: int = 0  # 0: not known yet
    planned_s: float = 0.0  # when that became known,
    planned_done: int = 0  # and how many of them were done by then
    remote: dict[str, Any] = field(default_factory=dict)  # where a fine-tuning runs, as its target calls it
    cursor: str = ""  # how far its log was read
    signature: str = ""  # empty: an older build submitted it, or a stranger
    remote_signature: str = ""  # the same of `remote`

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def owner(self) -> str | None:
        """The user whose alone the job is; None for a job that everybody sees who may see jobs."""
        return _owner(self.kind, self.spec)


@dataclass(frozen=True)
class JobStep:
    """One step over all units so far. `rejected` and `cut`: reason → number; `changed`: what → number."""

    label: str
    records_in: int = 0
    records_out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class JobProgress:
    """How far a job is. `fraction` is the part of its units that is done, 0 to 1; `eta_s` is None while unknown."""

    fraction: float
    eta_s: float | None
    num_units: int
    num_done: int
    failed: tuple[str, ...]  # names of units that were given up
    steps: tuple[JobStep, ...]


@dataclass(frozen=True)
class LogBatch:
    """A piece of a fine-tuning's log between two cursors: lines for people, points of its loss curve, a note."""

    cursor: str
    cursor_after: str
    unit: str
    note: Mapping[str, Any]
    lines: Sequence[str] = ()
    points: Sequence[Mapping[str, Any]] = ()


class Jobs:
    """The jobs of one installation. Who submits some needs its `key` (`services/jobs/signature.py`)."""

    def __init__(self, redis: Redis, keys: Keys, key: bytes = b"") -> None:
        self._redis = redis
        self._keys = keys
        self._key = key
        self.owners = OwnerLists(redis, keys)

    # -- what people do ------------------------------------------------------------------------------------------

    def submit(self, jid: str, kind: str, name: str, spec: Mapping[str, Any]) -> Job:
        """Make the job, or start a failed or cancelled one again. A job in another state stays as it is.

        Raises Conflict when the id belongs to a job with another spec.
        """
        keys = self._keys.job(check_name(jid, "job id")).all
        # Listed first: what is listed and does not exist is passed over, what exists and is not listed would be lost.
        now_s = server_time(self._redis)
        self._redis.zadd(self._keys.jobs, {jid: now_s}, nx=True)
        if owner := _owner(kind, spec):
            self.owners.add(owner, kind, jid, now_s)
        encoded = _encoded(spec)
        if _SUBMIT(self._redis, keys, kind, name, encoded, self._signature(kind, jid, encoded)) == b"conflict":
            raise Conflict(
                f"job {jid!r} has another recipe or other inputs; choose another folder, or forget that job with "
                f"`chatserver jobs remove {jid}`"
            )
        return self.get(jid)

    def _signature(self, kind: str, jid: str, spec: bytes) -> str:
        return signature(self._key, kind, jid, spec) if self._key else ""

    def resubmit(self, job: Job) -> Job:
        """Start a failed or cancelled job again. Raises Conflict for a job that this installation did not sign."""
        if not self.signed(job):
            raise Conflict(unsigned(job.id))
        return self.submit(job.id, job.kind, job.name, job.spec)

    def signed(self, job: Job) -> bool:
        """Whether somebody with our key submitted exactly this job."""
        right = self._signature(job.kind, job.id, _encoded(job.spec))
        return bool(right) and hmac.compare_digest(right.encode(), job.signature.encode())

    def attached(self, job: Job) -> dict[str, Any]:
        """Where the job runs, if somebody with our key wrote that; empty for what an older build or a stranger wrote.

        A forged one would have a target start a stranger's program, or end the machines of another job.
        """
        right = self._signature(REMOTE, job.id, _encoded(job.remote))
        ours = bool(right) and hmac.compare_digest(right.encode(), job.remote_signature.encode())
        return job.remote if ours else {}

    def sign_all(self) -> int:
        """Sign every job without a signature, as older builds left them; how many those were."""
        found = [job for job in self._existing(self.ids()) if not job.signature]
        for job in found:
            _SIGN(self._redis, self._keys.job(job.id).all, self._signature(job.kind, job.id, _encoded(job.spec)))
        return len(found)

    def list_for_owner(self, job: Job) -> bool:
        """List a job that an older build made, unless it is listed or everybody's. Whether this call did."""
        owner = job.owner
        return owner is not None and self.owners.add(owner, job.kind, job.id, job.created_s)

    def list_all_for_owners(self) -> int:
        """The same for all jobs; how many it listed."""
        ids = self.ids()
        kinds = self._replies("HGET", ids, "kind")  # first: a spec is long
        owned = (jid for jid, kind in zip(ids, kinds, strict=True) if kind in OWNED_KINDS)
        return sum(self.list_for_owner(job) for _, job in self.read(owned) if job is not None)

    def get(self, jid: str) -> Job:
        """Raises Gone."""
        fields = self._redis.hgetall(self._keys.job(check_name(jid, "job id")).job)
        if b"state" not in fields:
            raise _gone(jid)
        return _job(jid, {name.decode(): value for name, value in fields.items()})

    def list(self, limit: int = 100) -> Sequence[Job]:
        """The newest jobs, newest first."""
        return self._existing(raw.decode() for raw in self._redis.zrevrange(self._keys.jobs, 0, limit - 1))

    def ids(self) -> Sequence[str]:
        """The ids of all jobs, oldest first; some may have expired."""
        return [raw.decode() for raw in self._redis.zrange(self._keys.jobs, 0, -1)]

    def unfinished(self) -> Sequence[Job]:
        """All jobs that are submitted or running, oldest first."""
        states = self.states(self.ids())  # first: the sweep asks this of every job, and a spec is long
        running = (name for name, state in states.items() if state not in TERMINAL)
        return [job for job in self._existing(running) if not job.ended]

    def states(self, names: Iterable[str]) -> dict[str, str]:
        """The state of each of these jobs; empty for one that is not there."""
        listed = list(names)
        replies = self._replies("HGET", listed, "state")
        return {name: (state or b"").decode() for name, state in zip(listed, replies, strict=True)}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Job | None]]:
        """Each of these jobs, in this order; None for one that has expired. It reads on as far as the caller does."""
        first, second = itertools.tee(names)
        for jid, fields in zip(first, self._replies("HGETALL", second), strict=True):
            known = b"state" in fields
            yield jid, _job(jid, {name.decode(): value for name, value in fields.items()}) if known else None

    def _replies(self, command: str, names: Iterable[str], *arguments: str) -> Iterator[Any]:
        """The reply to a command for each job. A round trip for each of thousands would last for seconds."""
        rest = iter(names)
        while some := tuple(itertools.islice(rest, AT_ONCE)):
            pipe = self._redis.pipeline(transaction=False)
            for jid in some:
                pipe.execute_command(command, self._keys.job(jid).job, *arguments)
            for reply in pipe.execute(raise_on_error=False):
                if isinstance(reply, Exception):
                    raise reply
                yield reply

    def _existing(self, names: Iterable[str]) -> Sequence[Job]:
        """The jobs that have not expired. Removes the others from the list."""
        found = []
        for jid, job in self.read(names):
            if job is None:
                self._forget_expired(jid)
            else:
                found.append(job)
        return found

    def _forget_expired(self, jid: str) -> None:
        created_s = self._redis.zscore(self._keys.jobs, jid)
        if created_s is not None and created_s < server_time(self._redis) - TTL_S:
            self._redis.zrem(self._keys.jobs, jid)

    def cancel(self, jid: str) -> Job:
        """End the job soon, or at once if nobody has begun it. An ended job stays as it is. Raises Gone."""
        if _CANCEL(self._redis, self._keys.job(check_name(jid, "job id")).all, TTL_S) is None:
            raise _gone(jid)
        return self.get(jid)

    def remove(self, jid: str) -> None:
        """Forget an ended job; its folder stays. Raises InvalidRequest for a job that has not ended, or Gone."""
        state = _REMOVE(self._redis, self._keys.job(check_name(jid, "job id")).all)
        if state is None:
            raise _gone(jid)
        if state.decode() not in TERMINAL:
            raise InvalidRequest(f"job {jid!r} is {state.decode()}; cancel it first: `chatserver jobs cancel {jid}`")
        self._redis.zrem(self._keys.jobs, jid)

    # -- how it goes ---------------------------------------------------------------------------------------------

    def note(self, jid: str, unit: str, progress: Mapping[str, Any]) -> bool:
        """Write how far a unit is, unless the job has ended. Returns False when the job shall end. Raises Gone.

        `progress`: state (running, done, waiting or failed), records, of, steps {label: counts}, error.
        """
        reply = _NOTE(self._redis, self._keys.job(jid).all, unit, orjson.dumps(progress))
        if reply is None:
            raise _gone(jid)
        state, cancelling = reply
        return state.decode() not in TERMINAL and not cancelling

    def units(self, jid: str) -> dict[str, dict[str, Any]]:
        """The progress of each unit, by its name."""
        found = self._redis.hgetall(self._keys.job(jid).units)
        return {name.decode(): orjson.loads(value) for name, value in sorted(found.items())}

    def attach(self, jid: str, remote: Mapping[str, Any]) -> None:
        """Write where a fine-tuning runs, unless the job has ended or is gone."""
        encoded = _encoded(remote)
        _ATTACH(self._redis, self._keys.job(jid).all, encoded, self._signature(REMOTE, jid, encoded))

    def points(self, jid: str, after_step: int = -1) -> Sequence[dict[str, Any]]:
        """The points of the loss curve after a step, by step."""
        found = self._redis.hgetall(self._keys.job(jid).points)
        return [orjson.loads(found[key]) for key in sorted(found, key=int) if int(key) > after_step]

    def log(self, jid: str, line: str) -> None:
        """Add a line for people to the log, unless the job is gone."""
        _LOG(self._redis, self._keys.job(jid).all, _line(line), LOG_LINES)

    def follow(self, jid: str, batch: LogBatch) -> bool:
        """Keep a piece of a fine-tuning's log, whole and once. False when another process kept it, or the job ended.

        A second point of a step, as after a resume, replaces the first.
        """
        points = [text for point in batch.points for text in (int(point["step"]), orjson.dumps(dict(point)))]
        lines = [_line(line) for line in batch.lines]
        about = (batch.cursor, batch.cursor_after, batch.unit, orjson.dumps(dict(batch.note)), LOG_LINES, len(lines))
        return bool(_FOLLOW(self._redis, self._keys.job(jid).all, *about, *lines, *points))

    def tail(self, jid: str, after: str = "0", limit: int = 500) -> Sequence[tuple[str, float, str]]:
        """The lines after an id: (id, time in seconds, line). The last id is the `after` of the next call."""
        rows = self._redis.xrange(self._keys.job(jid).log, min=f"({after}", count=limit)
        return [
            (raw.decode(), int(raw.partition(b"-")[0]) / 1000, fields[b"line"].decode(errors="replace"))
            for raw, fields in rows
        ]

    # -- what the pipelines say ----------------------------------------------------------------------------------
    # Each is atomic and answers whether it was this call that moved the job; a job that has ended stays as it is.

    def started(self, jid: str) -> bool:
        return self._move(jid, "running")

    def planned(self, jid: str, num_units: int, num_done: int) -> bool:
        """Write how many units there are and how many of them are done, for the estimate."""
        return bool(_PLAN(self._redis, self._keys.job(jid).all, num_units, num_done))

    # Whoever sees the end sees the last line of the log too.

    def finished(self, jid: str, last_line: str = "") -> bool:
        return self._move(jid, "finished", last_line=last_line)

    def failed(self, jid: str, error: str, last_line: str = "") -> bool:
        """End the job. People read `error`; it has a traceback where that helps."""
        return self._move(jid, "failed", error, last_line)

    def cancelled(self, jid: str, last_line: str = "") -> bool:
        return self._move(jid, "cancelled", last_line=last_line)

    def _move(self, jid: str, to: str, error: str = "", last_line: str = "") -> bool:
        about = (to, error.encode(errors="replace"), TTL_S, _line(last_line), LOG_LINES)
        return bool(_MOVE(self._redis, self._keys.job(jid).all, *about))


def progress_of(job: Job, units: Mapping[str, Mapping[str, Any]], now_s: float) -> JobProgress:
    """The progress of the job: the sum over its units. `now_s` is by the clock of Redis (`server_time`)."""
    num_done = sum(unit.get("state") == "done" for unit in units.values())
    fraction = 1.0 if job.state == "finished" else 0.0
    if job.num_units and not fraction:
        fraction = min(sum(_part(unit) for unit in units.values()) / job.num_units, 1.0)
    return JobProgress(
        fraction=fraction,
        eta_s=_eta_s(job, fraction, now_s),
        num_units=job.num_units,
        num_done=num_done,
        failed=tuple(name for name, unit in units.items() if unit.get("state") == "failed"),
        steps=_steps(units),
    )


def _part(unit: Mapping[str, Any]) -> float:
    """Which part of a unit is done, 0 to 1."""
    if unit.get("state") == "done":
        return 1.0
    return float(min(unit.get("records", 0) / unit["of"], 1.0)) if unit.get("of") else 0.0


def _eta_s(job: Job, fraction: float, now_s: float) -> float | None:
    """The time left, from the speed since the number of units is known: units before that took other times."""
    if job.state != "running" or not job.num_units:
        return None
    gained = fraction - job.planned_done / job.num_units
    if gained <= 0:
        return None
    return max(now_s - job.planned_s, 0.0) * (1 - fraction) / gained


def _steps(units: Mapping[str, Mapping[str, Any]]) -> tuple[JobStep, ...]:
    """The steps in the order in which records meet them: reading, then stage by stage."""
    sums: dict[str, JobStep] = {}
    for name in sorted(units, key=lambda name: (name != "read", name)):
        for label, counts in units[name].get("steps", {}).items():
            sums[label] = _plus(sums.get(label, JobStep(label)), counts)
    return tuple(sums.values())


def _plus(step: JobStep, counts: Mapping[str, Any]) -> JobStep:
    def merged(name: str) -> dict[str, int]:
        have, more = getattr(step, name), counts.get(name, {})
        return {key: have.get(key, 0) + more.get(key, 0) for key in sorted({*have, *more})}

    return JobStep(
        step.label,
        step.records_in + counts.get("records_in", 0),
        step.records_out + counts.get("records_out", 0),
        merged("rejected"),
        merged("cut"),
        merged("changed"),
    )


def _job(jid: str, fields: Mapping[str, bytes]) -> Job:
    def text(name: str) -> str:
        return fields.get(name, b"").decode(errors="replace")

    def number(name: str) -> float:
        return float(fields.get(name, 0))

    return Job(
        id=jid,
        kind=text("kind"),
        name=text("name"),
        state=text("state"),
        spec=orjson.loads(fields["spec"]),
        created_s=number("created_s"),
        started_s=number("started_s"),
        ended_s=number("ended_s"),
        error=text("error"),
        cancelling=number("cancelling") > 0,
        num_units=int(number("num_units")),
        planned_s=number("planned_s"),
        planned_done=int(number("planned_done")),
        remote=orjson.loads(fields.get("remote", b"{}")),
        cursor=text("cursor"),
        signature=text("signature"),
        remote_signature=text("remote_signature"),
    )


def _owner(kind: str, spec: Mapping[str, Any]) -> str | None:
    """Of a batch, and of a fine-tuning that a program ordered."""
    about = {"batch": spec, "train": spec.get(ORDER)}.get(kind)
    user = about.get("user") if isinstance(about, Mapping) else None
    return user if isinstance(user, str) and user else None


def _line(line: str) -> str:
    """The text as Redis keeps it: half a surrogate pair in an error must not hide the error."""
    return line.encode(errors="replace").decode()[:MAX_LINE_CHARS]


def _encoded(spec: Mapping[str, Any]) -> bytes:
    return orjson.dumps(dict(spec), option=orjson.OPT_SORT_KEYS)


def unsigned(jid: str) -> str:
    """Why a job is refused, and the remedy."""
    return (
        f"job {jid!r} has no signature of this installation: submit it again from the page or the command; if it came "
        f"from another machine, give all machines the same {variable_of('job_key')} (or one state folder)"
    )


def _gone(jid: str) -> Gone:
    return Gone(f"there is no job {jid!r:.80}; `chatserver jobs list` shows them")
