"""The pipelines as real processes over a Redis of their own: a worker, a beat, jobs and what they made."""

import contextlib
import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from pipelines.cleaning.units import Unit
from services.jobs.celery_app import make_celery, wake
from services.jobs.jobs import Job, Jobs
from services.jobs.recipe import parse_recipe
from services.jobs.signature import job_key
from services.settings import load_settings
from tests.end_to_end.system import System, wait_until

RECIPE = """
name: shards
steps:
  - roles: {same_role: merge, min_chars: 4}
  - repair_unicode
  - blocked_phrases: {phrases: [forbidden thing]}
  - deduplicate
  - quality
  - split_validation: {fraction: 0.1}
shard_mib: %s
"""
FILES = ("data.jsonl", "validation.jsonl", "rejects.jsonl", "report.json")
WORDS = [f"word{number:03d}" for number in range(400)]


def write_records(path: Path, number: int, num_words: int) -> None:
    """ShareGPT records with some of everything: kept, broken, blocked, twice."""
    chance = random.Random(7)
    records: list[dict[str, Any]] = []
    for index in range(number):
        words = " ".join(chance.choices(WORDS, k=num_words))
        said = [{"from": "human", "value": f"Question {index}?"}, {"from": "gpt", "value": f"{words}, and so on."}]
        if index % 10 == 3:
            said.reverse()
        if index % 10 == 5:
            said[1]["value"] += " It is a forbidden thing."
        if index % 10 == 9:
            said = records[index - 5]["conversations"]
        records.append({"id": f"c{index}", "conversations": said})
    path.write_text(json.dumps(records))


class Pipelines(System):
    """A system whose jobs all clean the same input; `expected` is what a run in this process made of it."""

    def __init__(self, folder: Path, *, num_records: int, num_words: int, shard_mib: float, **options: Any) -> None:
        super().__init__(folder, "pipes", **{"clean_processes": 2, **options})
        self.jobs = Jobs(self.redis, self.keys, job_key(load_settings(self.environment)))
        self.celery = make_celery(load_settings(self.environment))
        self.source = folder / "in.json"
        write_records(self.source, num_records, num_words)
        self.recipe = RECIPE % shard_mib
        local.run(self.cleaning("expected"), 1, lambda unit, progress: None)
        self.expected = self.output("expected")

    def cleaning(self, name: str) -> Cleaning:
        return Cleaning(self.folder / name, parse_recipe(self.recipe, "r.yaml"), [str(self.source)])

    def output(self, name: str) -> dict[str, bytes]:
        return {file: (self.folder / name / file).read_bytes() for file in FILES}

    # -- processes -----------------------------------------------------------------------------------------------

    def worker(self) -> subprocess.Popen[bytes]:
        """Started, and ready to take tasks."""
        process = self.start("pipelines", "worker")
        log = self.folder / f"process-{len(self.processes) - 1}.log"
        wait_until(lambda: b"ready." in log.read_bytes() or process.poll() is not None, "the worker's start", 60)
        assert process.poll() is None, log.read_text()
        return process

    def beat(self) -> subprocess.Popen[bytes]:
        return self.start("pipelines", "beat")

    @staticmethod
    def children(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
        return psutil.Process(worker.pid).children()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to a process and its children, all gone when this returns."""
        gone = [*self.children(process), psutil.Process(process.pid)]
        process.kill()
        process.wait(10)
        psutil.wait_procs(gone, timeout=10)

    def kill_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def submit(self, name: str, **spec: Any) -> Job:
        """A job into the folder of the same name."""
        whole = {
            "recipe": self.recipe,
            "recipe_name": "r.yaml",
            "inputs": [str(self.source)],
            "out": str(self.folder / name),
            **spec,
        }
        job = self.jobs.submit(name, "clean", name, whole)
        wake(self.celery, name)
        return job

    def stop_mid_shard(self, worker: subprocess.Popen[bytes], name: str) -> str:
        """Waits until a shard is half done and stops (SIGSTOP) the worker's children there; the unit's name."""
        children = self.children(worker)

        def stopped() -> str:
            if not any(_half_done(unit, noted) for unit, noted in self.jobs.units(name).items()):
                return ""
            for child in children:
                child.suspend()
            for unit, noted in self.jobs.units(name).items():
                if _half_done(unit, noted) and self.is_held(name, unit):
                    return unit
            for child in children:
                child.resume()  # it had just ended
            return ""

        return str(wait_until(stopped, "a shard at work", 60))

    def is_held(self, name: str, unit: str) -> bool:
        """Somebody works on it now."""
        cleaning = self.cleaning(name)
        return cleaning.is_held(Unit.parse(unit)) and not cleaning.done(Unit.parse(unit))

    def ended(self, name: str, timeout_s: float = 60) -> Job:
        wait_until(lambda: self.jobs.get(name).ended, f"the end of {name}", timeout_s)
        return self.jobs.get(name)

    def lines(self, name: str) -> list[str]:
        return [line for _, _, line in self.jobs.tail(name, limit=10_000)]

    def times_done(self, name: str) -> Counter[str]:
        """How often the log says of each shard that it was done."""
        return Counter(line.partition(":")[0] for line in self.lines(name) if " records in, " in line)

    def check(self, name: str) -> None:
        """Finished with the bytes of an undisturbed run, and no shard was done twice."""
        job = self.ended(name)
        assert job.state == "finished", job.error
        assert self.output(name) == self.expected
        times = self.times_done(name)
        assert times and max(times.values()) == 1, times


def _half_done(unit: str, noted: dict[str, Any]) -> bool:
    return unit.startswith("shard-") and noted["state"] == "running"


@contextlib.contextmanager
def running_pipelines(folder: Path, kind: type[Pipelines] = Pipelines, **options: Any) -> Iterator[Pipelines]:
    """Redis only; the test starts the rest."""
    system = kind(folder, **options)
    try:
        yield system
    finally:
        system.kill_all()
        system.close()
