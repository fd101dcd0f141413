"""Fine-tunings as real processes over a Redis of their own; what trains is the stand-in of `stand_in.py`.

As a program, `python -m tests.pipelines.celery.training_processes ROLE`, it is `python -m pipelines ROLE` with that
stand-in.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from pipelines import __main__ as pipelines
from pipelines.celery import tasks as registered
from pipelines.celery import training_tasks as tasks
from pipelines.launching.local_target import LocalTarget, processes, signal_all
from pipelines.launching.targets import run_name
from services.jobs.celery_app import make_celery, wake
from services.jobs.jobs import Job, Jobs
from services.jobs.signature import job_key
from services.jobs.training import checked_training
from services.jobs.training_jobs import Place, training_spec
from services.jobs.training_progress import UNIT, TrainingProgress
from services.settings import load_settings
from tests.end_to_end.system import System, wait_until
from tests.pipelines.launching.contract import STEPS, control

STAND_IN = (sys.executable, "-m", "tests.pipelines.launching.stand_in")
SECRET = "hf_confidential_0123456789"


class Trainings(System):
    """A system whose jobs all train `STEPS` steps, each as far as `let` says; unless `program` is another one."""

    def __init__(
        self, folder: Path, program: str = "tests.pipelines.celery.training_processes", **options: Any
    ) -> None:
        self._program = program
        super().__init__(folder, "trains", **{"clean_processes": 1, **options})
        self.environment["HF_TOKEN"] = SECRET
        self.job_key = job_key(load_settings(self.environment))
        self.jobs = Jobs(self.redis, self.keys, self.job_key)
        self.celery = make_celery(load_settings(self.environment))
        self.data = folder / "data.jsonl"
        self.data.write_text('{"id": "a", "messages": []}\n')
        self.names: set[str] = set()

    # -- processes -----------------------------------------------------------------------------------------------

    def role(self, role: str) -> subprocess.Popen[bytes]:
        """Started, and ready to take tasks."""
        process = self.start(self._program, role)
        log = self.folder / f"process-{len(self.processes) - 1}.log"
        if role != "beat":
            wait_until(lambda: b"ready." in log.read_bytes() or process.poll() is not None, f"the {role}'s start", 60)
        assert process.poll() is None, log.read_text()
        return process

    def all_roles(self) -> None:
        for role in ("beat", "worker", "trainings"):
            self.role(role)

    @staticmethod
    def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        return psutil.Process(process.pid).children()

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to a process and its children, all gone when this returns; runs are not its children."""
        gone = [*Trainings.children(process), psutil.Process(process.pid)]
        for each in gone:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(10)
        psutil.wait_procs(gone, timeout=10)

    def kill_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)

    def kill_runs(self) -> None:
        """Supervisors and programs at one moment, as a power failure does: a program saves when its supervisor ends."""
        for name in self.names:
            signal_all(processes(name), signal.SIGSTOP)
            signal_all(processes(name), signal.SIGKILL)
            wait_until(lambda: not processes(name), "the death of the run", 10)  # noqa: B023

    # -- jobs ----------------------------------------------------------------------------------------------------

    def submit(self, name: str, *, wakes: bool = True, **config: Any) -> Job:
        """Into the folder of the same name; its program is held before its first step, unless it was let."""
        fields = {"name": name, "model": "tiny", "max_steps": STEPS, **config}
        spec = training_spec(checked_training(fields), [str(self.data)], str(self.folder / name), Place())
        if not (self.out(name) / "control" / "upto").exists():
            self.let(name, 0)
        job = self.jobs.submit(name, "train", name, spec)
        if wakes:
            wake(self.celery, name)
        return job

    def out(self, name: str) -> Path:
        return self.folder / name

    def let(self, name: str, upto: int) -> None:
        control(self.out(name), "upto", str(upto))

    def misbehave(self, name: str, at: int, how: str) -> None:
        control(self.out(name), "do", how)
        control(self.out(name), "at", str(at))

    def starts(self, name: str) -> int:
        path = self.out(name) / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def launched(self, name: str) -> str:
        """The name of its run, once its program works."""
        wait_until(lambda: self.starts(name), f"the launch of {name}", 30)
        run = run_name(name, self.jobs.get(name).started_s)
        self.names.add(run)
        return run

    def at_step(self, name: str, step: int) -> None:
        """It was let so far, and the job says so."""
        self.let(name, step)
        self.launched(name)
        wait_until(lambda: self.progress(name).records == step, f"step {step} of {name}", 30)

    def progress(self, name: str) -> TrainingProgress:
        return TrainingProgress.from_note(self.jobs.units(name).get(UNIT, {}))

    def ended(self, name: str, timeout_s: float = 60) -> Job:
        wait_until(lambda: self.jobs.get(name).ended, f"the end of {name}", timeout_s)
        return self.jobs.get(name)

    def lines(self, name: str) -> list[str]:
        return [line for _, _, line in self.jobs.tail(name, limit=10_000)]

    def steps_told(self, name: str) -> Counter[str]:
        return Counter(line for line in self.lines(name) if line.startswith("step "))

    def check(self, name: str) -> None:
        """Finished; every line and point that its program printed was told, and none twice."""
        job = self.ended(name)
        assert job.state == "finished", job.error
        printed = (self.out(name) / ".run" / "train.log").read_text().splitlines()
        people = Counter(line for line in printed if not line.startswith("::train ") and line)
        assert Counter(line for line in self.lines(name) if line in people) == people
        assert [point["step"] for point in self.jobs.points(name)] == list(range(1, STEPS + 1))


@contextlib.contextmanager
def running_trainings(folder: Path, **options: Any) -> Iterator[Trainings]:
    """Redis only; the test starts the rest."""
    system = Trainings(folder, **options)
    try:
        yield system
    finally:
        system.kill_all()
        system.kill_runs()
        system.close()


if __name__ == "__main__":
    tasks.HUNG_AFTER_S = float(os.environ.get("TEST_HUNG_AFTER_S", tasks.HUNG_AFTER_S))
    registered.LocalTarget = partial(LocalTarget, STAND_IN)  # type: ignore[attr-defined,assignment]
    sys.exit(pipelines.main())
