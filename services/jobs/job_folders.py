"""The folders that the installation itself made for jobs, and what is deleted of them with the job.

    state_dir/jobs/<job>/       of a cleaning that the page ordered, or of a batch: its uploads and results; of a
                                fine-tuning that a program ordered: its data
    state_dir/trained/<name>/   of a fine-tuning on this machine, unless its order names another folder
    state_dir/orders/<job>      locked while a program's order is made into a job; left by a process that was killed

The page and `chatserver jobs remove` call it. A folder that somebody chose (`--out`) is theirs and stays. So does a
finished model or adapter: it may be served, or be the base of another one. Functions that touch the disk block.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from redis.exceptions import RedisError

from services.errors import Busy, ChatServerError, Conflict, Gone
from services.jobs.jobs import Job, Jobs
from services.machine.files import flock, private
from services.models.model_folder import RESULTS

R = TypeVar("R")


class Apart(Protocol):
    """Calls a function where it delays nobody: a server, in a thread."""

    def __call__(self, function: Callable[..., R], *args: Any) -> R: ...


class JobFolders:
    """Of one state folder. `signed`: whether a job is ours (`Jobs.signed`); a stranger's may name another's folder."""

    def __init__(self, state_dir: Path, signed: Callable[[Job], bool]) -> None:
        self._signed = signed
        self.jobs_dir = state_dir.resolve() / "jobs"
        self.trained_dir = state_dir.resolve() / "trained"

    def own(self, job: Job) -> Path | None:
        """The job's folder, if we made it. That of a cleaning or batch has the job's id, also in an older one."""
        out = Path(str(job.spec.get("out", "")))
        if job.kind in ("clean", "batch"):
            is_name = job.id not in ("", ".", "..") and out.name == job.id  # anybody who reaches Redis chooses an id
            return out if is_name and out == self.jobs_dir / job.id and not out.is_symlink() else None
        is_there = job.spec.get("on") == "local" and out == self.trained_dir / out.name and not out.is_symlink()
        return out if job.kind == "train" and is_there and out.name not in ("", "..") and self._signed(job) else None

    def _data(self, job: Job) -> Path | None:
        """The folder with our links to the data of a fine-tuning that a program ordered."""
        folder = self.jobs_dir / job.id
        is_name = job.id not in ("", "..") and Path(job.id).name == job.id
        is_ours = job.kind == "train" and is_name and self._signed(job)
        return folder if is_ours and folder.is_dir() and not folder.is_symlink() else None

    def check_unused(self, job: Job, unfinished: Iterable[Job]) -> None:
        """Raises Conflict while a fine-tuning reads from the job's folder."""
        folder = self.own(job)
        if folder is None:
            return
        for other in unfinished:
            read = (*other.spec.get("data", ()), str(other.spec.get("config", {}).get("model", "")))
            if other.kind == "train" and other.id != job.id and any(Path(name).is_relative_to(folder) for name in read):
                raise Conflict(
                    f"the fine-tuning {other.name!r} reads this job's data; wait for its end, or cancel it first"
                )

    def remove(self, job: Job) -> Path | None:
        """Delete the folder of an ended job, but for what a fine-tuning made. What stays of it, if anything."""
        if not job.ended:
            raise Conflict(f"the job is {job.state}; cancel it first")
        if data := self._data(job):
            _delete(data)
        folder = self.own(job)
        if folder is None or not folder.is_dir():
            return None
        kept = [folder / name for name in RESULTS if job.kind == "train" and (folder / name).exists()]
        if not kept:
            _delete(folder)
            return None
        for path in folder.iterdir():
            if path not in kept:
                _delete(path)
        return kept[0]


# -- orders: a folder first, then its job ----------------------------------------------------------------------------


def at_once(function: Callable[..., R], *args: Any) -> R:
    """Calls it here."""
    return function(*args)


@contextlib.contextmanager
def undone_unless_made(jobs: Jobs, jid: str, undo: Callable[[], object]) -> Iterator[None]:
    """Submit a job inside. `undo` is called where an error kept the job from being made."""
    try:
        yield
    except Exception:
        with contextlib.suppress(ChatServerError, RedisError):  # without an answer of Redis the job may be there
            if not _is_there(jobs, jid):
                undo()
        raise


@contextlib.contextmanager
def removed_unless_made(jobs: Jobs, jid: str, folder: Path, apart: Apart = at_once) -> Iterator[None]:
    """Prepare the folder of a job inside, then submit the job. Where no job comes of it, the folder is deleted.

    If the process is killed in between, the next order of anybody deletes the folder: an order has a file which is
    locked while its process lives. Raises Busy while another process deletes what an earlier try of this order left.
    `apart` calls what may touch many files, and does nothing that needs Redis.
    """
    orders = folder.parent.with_name("orders")
    private(orders)
    _remove_abandoned(jobs, orders, folder.parent, apart)
    mark = orders / jid
    with _marked(mark) as file:
        with undone_unless_made(jobs, jid, lambda: apart(_undone, folder, mark, file)):
            yield
        mark.unlink(missing_ok=True)


def _undone(folder: Path, mark: Path, file: IO[bytes]) -> None:
    """Unless the same order came twice: then the folder is the other's, too, and the last of them deletes it."""
    if flock(file, wait=False) and not _is_removed(file):
        shutil.rmtree(folder, ignore_errors=True)
        mark.unlink()


def _remove_abandoned(jobs: Jobs, orders: Path, folders: Path, apart: Apart) -> None:
    for mark in apart(lambda: list(orders.iterdir())):
        with contextlib.suppress(FileNotFoundError), mark.open("rb") as file:
            if flock(file, wait=False) and not _is_removed(file):
                if not _is_there(jobs, mark.name):
                    apart(partial(shutil.rmtree, ignore_errors=True), folders / mark.name)
                mark.unlink()


@contextlib.contextmanager
def _marked(mark: Path) -> Iterator[IO[bytes]]:
    """Hold a lock of the file: shared, for the same order may come twice."""
    while True:
        with mark.open("ab") as file:
            if not flock(file, shared=True, wait=False):
                raise Busy(f"what an earlier try of the order {mark.name} left is being deleted", retry_after_s=1.0)
            if not _is_removed(file):
                yield file
                return


def _is_removed(file: IO[bytes]) -> bool:
    return not os.fstat(file.fileno()).st_nlink


def _is_there(jobs: Jobs, jid: str) -> bool:
    try:
        jobs.get(jid)
    except Gone:
        return False
    return True


# -- deletion --------------------------------------------------------------------------------------------------------


def _delete(path: Path) -> None:
    """Renamed first: whoever still ends a unit of a cancelled job cannot write between what is being removed."""
    doomed = path.rename(path.with_name(f".{path.name.lstrip('.')}-{secrets.token_hex(4)}"))
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()
