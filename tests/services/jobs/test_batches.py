"""Batches: what their folders hold, and for how long."""

from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeout

from services.jobs.batches import ENDPOINTS, Batches
from services.jobs.jobs import Jobs
from services.jobs.stored_files import StoredFiles
from services.wire.keys import Keys

CHAT = ENDPOINTS[0]


@pytest.fixture
def jobs(redis_client: redis.Redis, namespace: str) -> Jobs:
    return Jobs(redis_client, Keys(namespace))


@pytest.fixture
def files(tmp_path: Path) -> StoredFiles:
    return StoredFiles(tmp_path / "files", max_bytes=1 << 20, reserve_bytes=0)


@pytest.fixture
def file_id(files: StoredFiles) -> str:
    with files.draft("ann") as made:
        made.write(b"{}\n")
        return files.publish(made, "ann", "batch", "in.jsonl").id


def test_a_batch_that_nobody_began_gives_its_input_back_when_it_is_cancelled(
    jobs: Jobs, files: StoredFiles, file_id: str, tmp_path: Path
) -> None:
    """Upload, order, cancel, delete, and again: the folders of the jobs kept what the user's room no longer counts."""
    batches = Batches(jobs, files, tmp_path / "jobs")
    job = batches.submit("ann", file_id, CHAT)
    batches.let_go(job)
    assert (batches.folder_of(job.id) / "input.jsonl").exists(), "it has not ended"
    batches.let_go(jobs.cancel(job.id))
    assert not batches.folder_of(job.id).exists()


def test_an_order_that_redis_refuses_leaves_no_folder(
    jobs: Jobs, files: StoredFiles, file_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutOfMemoryError("full")

    monkeypatch.setattr(jobs, "submit", refuse)
    with pytest.raises(OutOfMemoryError):
        Batches(jobs, files, tmp_path / "jobs").submit("ann", file_id, CHAT)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_job_whose_answer_was_lost_keeps_its_folder(
    jobs: Jobs, files: StoredFiles, file_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = jobs.submit

    def lose(*order: Any) -> None:
        submit(*order)
        raise RedisTimeout("no answer")

    monkeypatch.setattr(jobs, "submit", lose)
    with pytest.raises(RedisTimeout):
        Batches(jobs, files, tmp_path / "jobs").submit("ann", file_id, CHAT)
    assert len(list((tmp_path / "jobs").glob("*/input.jsonl"))) == 1
