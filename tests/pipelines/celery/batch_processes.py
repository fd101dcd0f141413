"""Batches as real processes over a Redis of their own: the pipelines, synthetic workers, and what was asked."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from services.jobs.batches import Batches, BatchProgress
from services.jobs.celery_app import make_celery, wake
from services.jobs.jobs import Job, Jobs
from services.jobs.signature import job_key
from services.jobs.stored_files import StoredFiles
from services.settings import load_settings
from tests.end_to_end.system import System, wait_until

CHAT = "/v1/chat/completions"
USER = "ann"


def chat_line(custom_id: str, text: str, model: str = "echo", **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def chat_lines(number: int, length: int = 20) -> list[dict[str, Any]]:
    return [chat_line(f"q{index}", f"{index} {'x' * length}") for index in range(number)]


def as_file(lines: Sequence[object]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["response"]["body"]["choices"][0]["message"]["content"])


class BatchSystem(System):
    """A system that answers batches; `num_queued` counts what got into a queue."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, "batches", **{"clean_processes": 1, **options})
        settings = load_settings(self.environment)
        self.jobs = Jobs(self.redis, self.keys, job_key(settings))
        self.files = StoredFiles(folder / "files", max_bytes=2**30)
        self.batches = Batches(self.jobs, self.files, folder / "jobs")
        self.celery = make_celery(settings)

    # -- processes -----------------------------------------------------------------------------------------------

    def pipelines(self) -> subprocess.Popen[bytes]:
        """All of them; the one that asks is returned, and ready."""
        self.start("pipelines", "beat")
        self.start("pipelines", "worker")
        return self.asker()

    def asker(self) -> subprocess.Popen[bytes]:
        process = self.start("pipelines", "batches")
        log = self.folder / f"process-{len(self.processes) - 1}.log"
        wait_until(lambda: b"looking after" in log.read_bytes() or process.poll() is not None, "the asker's start", 60)
        assert process.poll() is None, log.read_text()
        return process

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to a process and its children, all gone when this returns."""
        gone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for each in gone:
            each.kill()
        process.wait(10)
        psutil.wait_procs(gone, timeout=10)

    def kill_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)

    # -- batches -------------------------------------------------------------------------------------------------

    def file(self, content: bytes, user: str = USER) -> str:
        with self.files.draft(user) as made:
            made.write(content)
            return self.files.publish(made, user, "batch", "in.jsonl").id

    def submit(self, content: bytes, endpoint: str = CHAT, user: str = USER) -> Job:
        job = self.batches.submit(user, self.file(content, user), endpoint)
        wake(self.celery, job.id)
        return job

    def progress(self, job: Job) -> BatchProgress:
        return self.batches.progress(self.jobs.get(job.id))

    def ended(self, job: Job, timeout_s: float = 90) -> Job:
        wait_until(lambda: self.jobs.get(job.id).ended, f"the end of {job.id}", timeout_s)
        return self.jobs.get(job.id)

    def lines_of(self, file_id: str, user: str = USER) -> list[Any]:
        if not file_id:
            return []
        content = self.files.content(self.files.get(file_id, user)).read_bytes()
        return [json.loads(line) for line in content.splitlines()]

    def output(self, job: Job) -> list[Any]:
        return self.lines_of(self.progress(job).output_file)

    def errors(self, job: Job) -> list[Any]:
        return self.lines_of(self.progress(job).error_file)

    def asked(self, job: Job) -> set[str]:
        """The ids of all requests of a batch; what became of each outlives its text."""
        keys = self.redis.scan_iter(f"{self.keys.namespace}:*{job.id}-*:state")
        return {re.findall(r"\{(.*)\}", key.decode())[0] for key in keys}

    def num_queued(self, model: str) -> int:
        """How many requests were ever put into the queue of a model; a second time counts, too."""
        name = self.keys.requests(model)
        return int(self.redis.xinfo_stream(name)["entries-added"]) if self.redis.exists(name) else 0


@contextlib.contextmanager
def running_batches(folder: Path, **options: Any) -> Iterator[BatchSystem]:
    """Redis only; the test starts the rest."""
    system = BatchSystem(folder, **options)
    try:
        yield system
    finally:
        system.kill_all()
        system.close()
