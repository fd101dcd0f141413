"""Batches: what their folders hold, and for how long."""

from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeout

from services.errors import InvalidRequest, UserLimit
from services.jobs.batches import ENDPOINTS, KIND, Batches
from services.jobs.jobs import Jobs
from services.jobs.owned_jobs import MADE_WITHIN_S
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


def test_an_order_counts_from_before_its_job_is_made(
    jobs: Jobs, files: StoredFiles, file_id: str, tmp_path: Path
) -> None:
    """Orders that came at the same moment were all counted before any was submitted, and passed the bound together."""
    batches = Batches(jobs, files, tmp_path / "jobs")
    with batches.admitted("batch_1", "ann", 2), batches.admitted("batch_2", "ann", 2):
        with pytest.raises(UserLimit, match="2 of your batches"), batches.admitted("batch_3", "ann", 2):
            pass
        with batches.admitted("batch_4", "bob", 1):
            pass
        for jid in ("batch_1", "batch_2"):
            jobs.submit(jid, KIND, *batches.prepare(jid, "ann", file_id, CHAT))
    with pytest.raises(UserLimit), batches.admitted("batch_3", "ann", 2):
        pass
    jobs.cancel("batch_1")
    with batches.admitted("batch_3", "ann", 2):
        pass


def test_an_order_that_is_refused_counts_no_more(jobs: Jobs, files: StoredFiles, tmp_path: Path) -> None:
    batches = Batches(jobs, files, tmp_path / "jobs")
    with pytest.raises(InvalidRequest), batches.admitted("batch_1", "ann", 1):
        batches.prepare("batch_1", "ann", "file-a", "/v1/nonsense")
    with batches.admitted("batch_2", "ann", 1):
        pass


def test_an_order_whose_process_was_killed_counts_for_a_minute(
    jobs: Jobs, files: StoredFiles, tmp_path: Path, redis_client: redis.Redis, namespace: str
) -> None:
    batches, owned = Batches(jobs, files, tmp_path / "jobs"), Keys(namespace).owned_jobs("ann", KIND)
    jobs.owners.place("ann", KIND, "batch_killed")
    with pytest.raises(UserLimit), batches.admitted("batch_1", "ann", 1):
        pass
    redis_client.zincrby(owned, -MADE_WITHIN_S, "batch_killed")
    with batches.admitted("batch_1", "ann", 1):
        assert redis_client.zrange(owned, 0, -1) == [b"batch_1"], "and is forgotten"


def test_an_order_that_is_refused_leaves_the_place_of_the_same_order_that_comes_again(
    jobs: Jobs, files: StoredFiles, file_id: str, tmp_path: Path
) -> None:
    """The first took the id off the list, and the batch of the second was in none."""
    batches = Batches(jobs, files, tmp_path / "jobs")
    with pytest.raises(InvalidRequest), batches.admitted("batch_1", "ann", 9):
        jobs.owners.place("ann", KIND, "batch_1")  # as the second does
        batches.prepare("batch_1", "ann", "file-a", "/v1/nonsense")
    assert list(jobs.owners.times("ann", KIND)) == ["batch_1"]


def test_a_list_forgets_what_is_not_there_any_more_and_keeps_what_is_being_made(
    jobs: Jobs, files: StoredFiles, file_id: str, tmp_path: Path, redis_client: redis.Redis, namespace: str
) -> None:
    batches, owned = Batches(jobs, files, tmp_path / "jobs"), Keys(namespace).owned_jobs("ann", KIND)
    mine = batches.submit("ann", file_id, CHAT).id
    for jid in ("batch_expired", "batch_being_made"):
        jobs.owners.place("ann", KIND, jid)
    redis_client.zincrby(owned, -MADE_WITHIN_S, "batch_expired")
    assert [job.id for job in batches.list("ann")] == [mine]
    assert list(jobs.owners.times("ann", KIND)) == [mine, "batch_being_made"]


def test_a_batch_that_is_found_is_in_its_users_list(
    jobs: Jobs, files: StoredFiles, file_id: str, tmp_path: Path, redis_client: redis.Redis, namespace: str
) -> None:
    batches = Batches(jobs, files, tmp_path / "jobs")
    mine = batches.submit("ann", file_id, CHAT).id
    redis_client.delete(Keys(namespace).owned_jobs("ann", KIND))
    assert batches.find(mine, "bob") is None
    assert batches.get(mine, "ann").id == mine
    assert [list(batches.list(user)) for user in ("ann", "bob")] == [[jobs.get(mine)], []]


def test_a_users_list_reads_no_other_users_ids(
    jobs: Jobs, files: StoredFiles, file_id: str, tmp_path: Path, redis_client: redis.Redis, namespace: str
) -> None:
    """It read the ids of all jobs, and of the batches of all users the jobs."""
    batches = Batches(jobs, files, tmp_path / "jobs")
    mine = [batches.submit("ann", file_id, CHAT).id for _ in range(3)]
    redis_client.delete(Keys(namespace).jobs)
    assert [job.id for job in batches.list("ann")] == mine[::-1]
    assert [job.id for job in batches.list("ann", newest_first=False, after=mine[0])] == mine[1:]
    assert list(batches.list("bob")) == []
    with pytest.raises(InvalidRequest, match="the id of no batch of yours"):
        batches.list("bob", after=mine[0])
