"""Fine-tuning on this machine: each run is a process of its own that survives a restart of the Celery worker.

    target = LocalTarget()
    remote = target.submit(run)         # {"name": …, "folder": OUT/.run}

Used by `pipelines/celery/training_tasks.py`. The files of a run are in `OUT/.run`: `run.json` (what was launched, how
often it died), `config.yaml`, `train.log`, `exit.json`, and `lock`. A supervisor (`pipelines/launching/local_run.py`)
starts the program; the flock of `lock` is held until both have ended, whichever is killed first. So a free lock means
that nothing runs, and `exit.json` says how the run ended. If there is no `exit.json`, the machine or the supervisor
died: the target starts the program again, which continues from its newest checkpoint.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import orjson

from pipelines.launching.targets import Outcome, Run
from services.jobs.training import ABORTED_EXIT, EVENT_MARK, REFUSED_EXIT, STOPPED_EXIT, parse_event
from services.machine import files
from services.models.model_folder import CHECKPOINT_MARKER
from services.places import ROOT

SUPERVISOR = "pipelines.launching.local_run"
_SUPERVISORS = (SUPERVISOR.encode(), b"pipelines.training.local_run")  # the second: of runs begun before 2026-11-29
PROGRAM = (sys.executable, "-m", "pipelines.training")
RUN_VARIABLE = "TRAINING_RUN"  # in the environment of every process of a run: their pids may be reused, this is not
MAX_DEATHS = 3  # without a newer checkpoint between them
TERM_GRACE_S = 1800.0  # from SIGTERM to SIGKILL: time to save a large checkpoint
KILL_AFTER_S = 120.0  # a cancelled run: nobody waits as long for what it would save
MAX_READ_BYTES = 1 << 20  # of the log at once
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Record:
    """`run.json`: the launched run. `attempt` counts from 0; `deaths` counts those without progress."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str]
    began_s: float
    log_start: int = 0  # where the run's lines begin in the log, and
    attempt_start: int = 0  # those of its latest attempt
    attempt: int = 0
    deaths: int = 0
    checkpoint: int = -1  # the newest complete one when the attempt began
    cancelled_s: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Self | None:
        if not path.exists():
            return None
        found = orjson.loads(path.read_bytes())
        return cls(**{**found, "command": tuple(found["command"])})

    def write(self, path: Path) -> None:
        files.write(path, orjson.dumps(asdict(self)), mode=0o600)


class LocalTarget:
    """Runs `program` with the arguments of `python -m pipelines.training`; tests give another program."""

    def __init__(self, program: Sequence[str] = PROGRAM, secrets: Mapping[str, str] | None = None) -> None:
        self._program = tuple(program)
        self._secrets = dict(secrets or {})  # for a start after a death; nowhere on disk

    # -- the contract --------------------------------------------------------------------------------------------

    def submit(self, run: Run) -> dict[str, Any]:
        folder = Path(run.out) / ".run"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # the program may print what is secret
        with _turn(folder), _life(folder) as lock:
            record = Record.read(folder / "run.json")
            if record is not None and (record.name == run.name or lock is None):
                return _remote(folder, record.name)
            assert lock is not None, "only what was launched holds it"
            record = self._record(folder, run)
            (folder / "config.yaml").write_text(run.config.to_yaml())
            self._start(folder, record, lock, run.secrets)
        return _remote(folder, run.name)

    def poll(self, remote: Mapping[str, Any]) -> Outcome:
        folder = Path(remote["folder"])
        if not folder.exists():
            return Outcome(
                "failed", f"the folder {folder} of the run is gone", "submit it again; it begins with what is left"
            )
        with _turn(folder), _life(folder) as lock:
            record = Record.read(folder / "run.json")
            if record is None or record.name != remote["name"]:
                return Outcome("cancelled", "another run took its place in the folder")
            if lock is None:
                return self._living(folder, record)
            return self._ended(folder, record, lock)

    def logs(self, remote: Mapping[str, Any], cursor: str) -> tuple[list[str], str]:
        folder = Path(remote["folder"])
        path = folder / "train.log"
        if not path.exists():
            return [], cursor
        with _turn(folder), _life(folder) as lock:
            whole = lock is not None  # nobody writes any more: what has no end is a line, too
            record = Record.read(folder / "run.json")
        at = int(cursor or (record.log_start if record else 0))
        with path.open("rb") as file:
            file.seek(at)
            read = file.read(MAX_READ_BYTES)
        end = read.rfind(b"\n") + 1
        if (whole and len(read) < MAX_READ_BYTES) or (not end and len(read) == MAX_READ_BYTES):
            end = len(read)
        return _lines(read[:end]), str(at + end)

    def cancel(self, remote: Mapping[str, Any]) -> None:
        folder = Path(remote["folder"])
        if not folder.exists():
            return
        with _turn(folder):
            record = Record.read(folder / "run.json")
            if record is None or record.name != remote["name"]:
                return
            if not record.cancelled_s:
                record = replace(record, cancelled_s=time.time())
                record.write(folder / "run.json")
        if time.time() - record.cancelled_s < KILL_AFTER_S:
            signal_all(supervisors(record.name), signal.SIGTERM)
        else:
            signal_all(processes(record.name), signal.SIGKILL)

    def down(self, remote: Mapping[str, Any]) -> None:
        """This machine stays."""

    # -- what became of it ---------------------------------------------------------------------------------------

    def _living(self, folder: Path, record: Record) -> Outcome:
        if _spoke(folder / "train.log", record.attempt_start):
            return _outcome("running", record)
        return _outcome("recovering" if record.attempt else "starting", record)

    def _ended(self, folder: Path, record: Record, lock: int) -> Outcome:
        """With the lock: nothing runs, and nothing is started but here."""
        code = _exit_code(folder, record.attempt)
        if code == 0:
            return _outcome("finished", record)
        if record.cancelled_s:
            return _outcome("cancelled", record)
        if code in (REFUSED_EXIT, ABORTED_EXIT):
            return _outcome("failed", record, *_last_words(folder, record, code))
        checkpoint = newest_checkpoint(folder.parent)
        crashed = code != STOPPED_EXIT
        deaths = 0 if checkpoint > record.checkpoint else record.deaths + crashed
        if deaths >= MAX_DEATHS:
            return _outcome("failed", record, *_last_words(folder, record, code))
        record = replace(
            record,
            attempt=record.attempt + 1,
            attempt_start=_size(folder / "train.log"),
            deaths=deaths,
            checkpoint=checkpoint,
        )
        self._start(folder, record, lock, self._secrets)
        return _outcome("recovering", record)

    # -- starting ------------------------------------------------------------------------------------------------

    def _record(self, folder: Path, run: Run) -> Record:
        size = _size(folder / "train.log")
        return Record(
            name=run.name,
            command=self._command(folder, run),
            env=dict(run.env),
            began_s=time.time(),
            log_start=size,
            attempt_start=size,
            checkpoint=newest_checkpoint(folder.parent),
        )

    def _command(self, folder: Path, run: Run) -> tuple[str, ...]:
        given = ["--config", str(folder / "config.yaml"), *(f"--data={path}" for path in run.data), "--out", run.out]
        if run.num_devices == 1:
            return (*self._program, *given)
        python, *rest = self._program
        launcher = ("-m", "pipelines.training.torchrun", "--standalone", "--nproc-per-node", str(run.num_devices))
        return (python, *launcher, *rest, *given)

    def _start(self, folder: Path, record: Record, lock: int, secrets: Mapping[str, str]) -> None:
        """The supervisor inherits the lock that we hold, so that it is never free before the run has ended."""
        record.write(folder / "run.json")
        signal_all(processes(record.name), signal.SIGKILL)  # of an earlier attempt, should its launcher have left any
        environment = {**os.environ, **self._secrets, **secrets, **record.env, RUN_VARIABLE: record.name}
        with (folder / "supervisor.log").open("ab") as output:
            subprocess.run(  # it goes to the background by itself
                [sys.executable, "-m", SUPERVISOR, str(folder), str(lock)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                start_new_session=True,
                check=True,
            )


# -- the folder of a run ---------------------------------------------------------------------------------------------


def _turn(folder: Path) -> AbstractContextManager[None]:
    """One process at a time looks and decides."""
    return files.lock(folder / "turn")


def _life(folder: Path) -> AbstractContextManager[int | None]:
    """The lock's descriptor if nothing runs, else None. A child that was given it meanwhile keeps it locked."""
    return files.try_lock(folder / "lock")


def newest_checkpoint(out: Path) -> int:
    """The step of the highest checkpoint that has its marker; -1 when there is none."""
    found = out.glob(f"checkpoints/checkpoint-*/{CHECKPOINT_MARKER}")
    steps = [path.parent.name.removeprefix("checkpoint-") for path in found]
    return max((int(step) for step in steps if step.isdigit()), default=-1)


def _exit_code(folder: Path, attempt: int) -> int | None:
    """Of this attempt; None when nobody could write it."""
    path = folder / "exit.json"
    if not path.exists():
        return None
    found = orjson.loads(path.read_bytes())
    return int(found["code"]) if found["attempt"] == attempt else None


def _remote(folder: Path, name: str) -> dict[str, Any]:
    return {"target": "local", "name": name, "folder": str(folder)}


def _outcome(state: Any, record: Record, message: str = "", remedy: str = "") -> Outcome:
    return Outcome(state, message, remedy, recoveries=record.attempt, seconds=max(time.time() - record.began_s, 0.0))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lines(data: bytes) -> list[str]:
    lines = data.decode(errors="replace").split("\n")
    return [line.rpartition("\r")[2] for line in lines if line.strip()]  # of a progress bar, what stood there last


def _spoke(path: Path, start: int) -> bool:
    """Whether the program has got as far as its first event."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(start)
        return EVENT_MARK.encode() in file.read(MAX_READ_BYTES)
    return False


# -- why it failed ---------------------------------------------------------------------------------------------------


def _last_words(folder: Path, record: Record, code: int | None) -> tuple[str, str]:
    """A sentence and a remedy."""
    lines = tail(folder / "train.log", record.attempt_start)
    told = [event for line in lines if (event := parse_event(line)) and event["event"] == "failed"]
    if told:
        return str(told[-1].get("message", "")), ""
    how = {None: "was killed", -signal.SIGKILL: "was killed"}.get(code, f"ended with exit code {code}")
    last = next((line for line in reversed(lines) if parse_event(line) is None), "it said nothing")
    return (
        f"the training program {how} {record.deaths + 1} times without a new checkpoint; its last line: {last:.500}",
        "mend what its log shows (killed mostly means too little memory: halve per_device_tokens) and submit it again",
    )


def tail(path: Path, start: int) -> list[str]:
    """The last lines of a log, of what follows `start`."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(start, _size(path) - TAIL_BYTES))
        return _lines(file.read())


# -- the processes of a run ------------------------------------------------------------------------------------------


def processes(name: str) -> list[int]:
    """All of this user's that belong to the run, by their environment; not the one that asks."""
    mark = f"{RUN_VARIABLE}={name}".encode()
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and mark in _told(pid, "environ")]


def supervisors(name: str) -> list[int]:
    return [pid for pid in processes(name) if not set(_SUPERVISORS).isdisjoint(_told(pid, "cmdline"))]


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _told(pid: int, what: str) -> list[bytes]:
    """What the kernel tells of a process: nothing of one that is gone or another user's."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().split(b"\0")
    except OSError:
        return []
