"""What is deleted with a job: what the installation made for it, and nothing that is a person's or still in use."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from services.errors import Conflict
from services.jobs.job_folders import JobFolders, removed_unless_made
from services.jobs.jobs import Job, Jobs
from services.wire.keys import Keys


@pytest.fixture
def folders(tmp_path: Path) -> JobFolders:
    return JobFolders(tmp_path, lambda job: job.signature == "ours")


def ended(kind: str, out: Path | str, jid: str = "j1", state: str = "cancelled", **spec: Any) -> Job:
    return Job(jid, kind, jid, state, {"out": str(out), "on": "local", **spec}, 1.0, signature="ours")


def written(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def test_a_cleaning_of_the_page_goes_with_its_uploads_and_results(folders: JobFolders) -> None:
    out = written(folders.jobs_dir / "j1", "inputs/u/u.json", "data.jsonl", ".work/finished.json")
    assert folders.remove(ended("clean", out)) is None and list(folders.jobs_dir.iterdir()) == []
    assert folders.remove(ended("clean", out)) is None, "once more"


def test_a_fine_tuning_goes_with_its_checkpoints_and_its_model_stays(folders: JobFolders) -> None:
    out = written(folders.trained_dir / "july", "checkpoints/checkpoint-2/w", ".run/train.log", "model/weights")
    assert folders.remove(ended("train", out)) == out / "model"
    assert [path.name for path in out.iterdir()] == ["model"] and (out / "model" / "weights").exists()
    out = written(folders.trained_dir / "may", "checkpoints/checkpoint-2/w", "model/weights", "adapter/weights")
    assert folders.remove(ended("train", out)) == out / "model"
    assert sorted(path.name for path in out.iterdir()) == ["adapter", "model"]
    out = written(folders.trained_dir / "april", "checkpoints/checkpoint-2/w", "adapter/weights")
    assert folders.remove(ended("train", out)) == out / "adapter"
    without = written(folders.trained_dir / "june", "checkpoints/checkpoint-2/w")
    assert folders.remove(ended("train", without)) is None and not without.exists()


@pytest.mark.parametrize(("jid", "signature", "goes"), [("j1", "ours", True), ("j1", "", False), ("", "ours", False)])
def test_a_fine_tuning_that_a_program_ordered_goes_with_its_data(
    folders: JobFolders, jid: str, signature: str, goes: bool
) -> None:
    written(folders.jobs_dir / "j1", "training.jsonl")
    folders.remove(replace(ended("train", folders.trained_dir / "july", jid), signature=signature))
    assert (folders.jobs_dir / "j1").exists() is not goes


def test_what_others_own_is_left(folders: JobFolders, tmp_path: Path) -> None:
    mine = written(tmp_path / "mine", "data.jsonl")
    link = folders.trained_dir / "link"
    link.parent.mkdir()
    link.symlink_to(mine)
    for kind, out in (
        ("clean", mine),
        ("clean", folders.jobs_dir / "j2"),
        ("train", mine),
        ("train", link),
        ("train", f"{folders.trained_dir}/.."),
        ("train", folders.trained_dir),
        ("train", "s3://bucket/run"),
    ):
        assert folders.own(ended(kind, out)) is None and folders.remove(ended(kind, out)) is None, out
    assert (mine / "data.jsonl").exists() and link.exists()
    theirs = written(folders.trained_dir / "theirs", "checkpoints/checkpoint-2/w")
    forged = replace(ended("train", theirs), signature="")
    assert folders.own(forged) is None and folders.remove(forged) is None and theirs.exists()


@pytest.mark.parametrize("jid", [".", "..", "../../victim", ""])
def test_a_job_whose_id_is_a_path_deletes_nothing(folders: JobFolders, jid: str) -> None:
    """Ids are chosen by whoever reaches Redis, and no signature is asked of a cleaning."""
    folders.jobs_dir.mkdir(parents=True, exist_ok=True)
    other = written(folders.jobs_dir / "j2", "data.jsonl")
    victim = written(folders.jobs_dir.parent.parent / "victim", "letter")
    assert folders.own(ended("clean", folders.jobs_dir / jid, jid)) is None
    assert folders.remove(ended("clean", folders.jobs_dir / jid, jid)) is None
    assert (other / "data.jsonl").exists() and (victim / "letter").exists()


def test_a_job_that_runs_or_is_read_by_a_fine_tuning_keeps_its_files(folders: JobFolders) -> None:
    out = written(folders.jobs_dir / "j1", "data.jsonl")
    with pytest.raises(Conflict, match="is running; cancel it first"):
        folders.remove(ended("clean", out, state="running"))
    reader = ended("train", folders.trained_dir / "x", "j2", "running", data=[str(out / "data.jsonl")])
    with pytest.raises(Conflict, match="'j2' reads this job's data"):
        folders.check_unused(ended("clean", out), [reader])
    base = written(folders.trained_dir / "base", "model/weights")
    tuned = ended("train", folders.trained_dir / "y", "j3", "running", config={"model": str(base / "model")})
    with pytest.raises(Conflict, match="'j3' reads"):
        folders.check_unused(ended("train", base), [tuned])
    folders.check_unused(ended("clean", out), [ended("train", folders.trained_dir / "x", "j2", "running", data=[])])


# -- orders ----------------------------------------------------------------------------------------------------------

KILLED = """
import os, pathlib, signal, sys
from redis import Redis
from services.jobs.job_folders import removed_unless_made
from services.jobs.jobs import Jobs
from services.wire.keys import Keys

first, second = map(pathlib.Path, sys.argv[1:])
jobs = Jobs(Redis(port=1), Keys("n"))
with removed_unless_made(jobs, first.name, first), removed_unless_made(jobs, second.name, second):
    for folder in (first, second):
        folder.mkdir(parents=True)
        (folder / "input.jsonl").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_prepared_is_deleted_by_the_next_order(
    redis_client: redis.Redis, namespace: str, tmp_path: Path
) -> None:
    """It stayed for ever: no job of that name was ever made, so nobody could remove it."""
    jobs, folders = Jobs(redis_client, Keys(namespace)), tmp_path / "jobs"
    died = subprocess.run([sys.executable, "-c", KILLED, folders / "lost", folders / "made"], check=False)
    assert died.returncode == -signal.SIGKILL and len(list(folders.glob("*/input.jsonl"))) == 2
    jobs.submit("made", "batch", "made", {})  # as if it had died behind that
    with removed_unless_made(jobs, "next", folders / "next"):
        assert [path.name for path in folders.iterdir()] == ["made"]
        assert [path.name for path in (tmp_path / "orders").iterdir()] == ["next"]
    assert list((tmp_path / "orders").iterdir()) == []


def test_an_order_that_is_being_made_is_not_deleted_by_another(
    redis_client: redis.Redis, namespace: str, tmp_path: Path
) -> None:
    jobs, folders = Jobs(redis_client, Keys(namespace)), tmp_path / "jobs"
    with removed_unless_made(jobs, "slow", folders / "slow"):
        written(folders / "slow", "input.jsonl")
        with removed_unless_made(jobs, "next", folders / "next"), removed_unless_made(jobs, "slow", folders / "slow"):
            assert (folders / "slow" / "input.jsonl").exists()


def test_an_order_that_is_refused_keeps_what_the_same_order_prepares_that_came_again(
    redis_client: redis.Redis, namespace: str, tmp_path: Path
) -> None:
    """It deleted the folder, and the other's job was submitted without its input."""
    jobs, folder = Jobs(redis_client, Keys(namespace)), tmp_path / "jobs" / "twice"
    with removed_unless_made(jobs, "twice", folder):
        written(folder, "input.jsonl")
        with pytest.raises(Conflict), removed_unless_made(jobs, "twice", folder):
            raise Conflict("refused")
        assert (folder / "input.jsonl").exists()
        jobs.submit("twice", "batch", "twice", {})
    with pytest.raises(Conflict), removed_unless_made(jobs, "once", folder.with_name("once")):
        written(folder.with_name("once"), "input.jsonl")
        raise Conflict("refused")
    assert [path.name for path in folder.parent.iterdir()] == ["twice"]
    assert list((tmp_path / "orders").iterdir()) == []
