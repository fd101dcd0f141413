"""Runs in an object store: the same bytes as on a disk, leases without flock, and nothing left behind.

Each test has a prefix of its own in one bucket of one server.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from pipelines.cleaning.leases import Lease
from pipelines.cleaning.object_store import ObjectStore
from pipelines.cleaning.store_folder import StoreFolder
from pipelines.cleaning.units import Unit
from services.errors import ConfigurationError
from services.jobs.recipe import parse_recipe
from tests.end_to_end.system import wait_until
from tests.s3_server import BUCKET, S3Server, s3_server

RECIPE = """
name: shards
steps: [roles, repair_unicode, {deduplicate: {near: true}}, {split_validation: {fraction: 0.2}}]
shard_mib: 0.02
"""
FILES = ("data.jsonl", "validation.jsonl", "rejects.jsonl", "report.json", "report.html")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as started:
        yield started


@pytest.fixture
def store(server: S3Server, request: pytest.FixtureRequest) -> ObjectStore:
    return ObjectStore(f"s3://{BUCKET}/{request.node.name}")


@pytest.fixture
def folder(store: ObjectStore) -> StoreFolder:
    made = StoreFolder(store)
    made.claim({"recipe": "a"})
    return made


def talks(path: Path) -> Path:
    records = [
        {
            "id": f"c{n}",
            "conversations": [{"from": "human", "value": f"Question {n // 2}?"}, {"from": "gpt", "value": w}],
        }
        for n in range(120)
        for w in [f"Answer {n // 2} has some words that are its own: {n // 2 * 7919}."]
    ]
    path.write_text(json.dumps(records))
    return path


def test_a_run_in_a_bucket_has_the_bytes_of_a_run_on_a_disk_and_leaves_nothing_else(
    server: S3Server, store: ObjectStore, tmp_path: Path
) -> None:
    """The inputs are read from the bucket, too."""
    store.upload(talks(tmp_path / "in.json"), "in.json")
    recipe, source = parse_recipe(RECIPE, "r.yaml"), f"{store.url}/in.json"
    local.run(Cleaning(tmp_path / "out", recipe, [source]), 1, lambda unit, progress: None)
    run = Cleaning(f"{store.url}/out", recipe, [source])
    local.run(run, 1, lambda unit, progress: None)
    assert run.num_shards > 1
    for name in FILES:
        assert run.folder.result(name) == (tmp_path / "out" / name).read_bytes(), name
    assert server.names(f"{BUCKET}/{store.url.rpartition('/')[2]}/out") == {
        *FILES, ".work/run.json", ".work/finished.json",
    }  # fmt: skip
    assert server.num_open_uploads() == 0
    assert run.todo() == [] and run.counts(Unit("read"))["records"] == 120


def test_a_unit_that_failed_half_way_leaves_no_object(folder: StoreFolder, server: S3Server) -> None:
    """s3fs completes the upload of a file whose `with` block raised: half a shard looked whole."""
    with pytest.raises(ZeroDivisionError), folder.making(Unit("read")) as draft:
        (draft / "half").write_text("x")
        raise ZeroDivisionError
    assert not folder.done(Unit("read"))
    assert server.names(folder.out.removeprefix("s3://")) == {".work/run.json"}


def test_what_another_machine_has_done_is_seen_at_once(folder: StoreFolder) -> None:
    """s3fs caches listings, so a worker saw for ever what it had seen first."""
    other = StoreFolder(ObjectStore(folder.out))
    assert other.done_names() == frozenset() and not other.done(Unit("read"))
    with folder.making(Unit("read")) as draft:
        (draft / "whole").write_text("x")
    assert other.done_names() == {"read"} and other.done(Unit("read"))
    with other.open(Unit("read"), "whole") as file:
        assert file.read() == b"x"


def test_an_upload_that_a_killed_process_left_open_is_ended_by_the_next(folder: StoreFolder, server: S3Server) -> None:
    """Its parts are paid for, and no listing shows them."""
    key = f"{folder.out.removeprefix(f's3://{BUCKET}/')}/.work/read/00000.jsonl"
    server.client().call_s3("create_multipart_upload", Bucket=BUCKET, Key=key)
    assert server.num_open_uploads() == 1
    with folder.draft(Unit("read")):
        assert server.num_open_uploads() == 0


def test_a_finished_run_with_the_marks_of_a_pattern_in_its_name_removes_its_own_units_alone(store: ObjectStore) -> None:
    """s3fs expands patterns when it removes: `run*` took the units of run1 along, `run[1]` found none of its own."""
    other = ObjectStore(f"{store.url}/run1")
    other.write(".work/read/whole", b"x")
    for name in ("run*", "run?", "run[1]"):
        run = ObjectStore(f"{store.url}/{name}")
        folder = StoreFolder(run)
        folder.claim({"recipe": "a"})
        with folder.making(Unit("read")) as draft:
            (draft / "whole").write_text("x")
        with folder.draft(Unit("finish")) as draft:
            folder.finish(draft, {})
        assert sorted(run.names(".work")) == ["finished.json", "run.json"], name
    assert other.read(".work/read/whole") == b"x"


def test_a_store_that_refuses_to_remove_an_object_is_heard(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers 200 and lists what it refused."""
    store.write(".work/read/whole", b"x")
    refusal = {"Errors": [{"Key": "whole", "Code": "AccessDenied"}]}
    monkeypatch.setattr(store, "_call", lambda method, **arguments: refusal)
    with pytest.raises(OSError, match="AccessDenied"):
        store.remove(".work")


def test_a_prefix_belongs_to_one_run(folder: StoreFolder) -> None:
    folder.claim({"recipe": "a"})
    with pytest.raises(ConfigurationError, match="another recipe"):
        folder.claim({"recipe": "b"})


@pytest.mark.parametrize("url", ["gs://bucket/run", "http://host/run"])
def test_a_store_without_leases_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="give one of these"):
        Cleaning(url, parse_recipe(RECIPE, "r.yaml"), ["in.json"])


# -- leases ------------------------------------------------------------------------------------------------------


def takers_that_win(store: ObjectStore, number: int, lease_s: float) -> int:
    """Of so many processes that take the same lease at once, each of them a thread with a client of its own."""
    won, start, leave = [], threading.Barrier(number), threading.Barrier(number)

    def take() -> None:
        lease = Lease(ObjectStore(store.url), "lease", lease_s)
        start.wait(30)
        with lease.taken() as ours:
            won.append(ours)
            leave.wait(30)

    threads = [threading.Thread(target=take) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(won)


def test_one_of_many_gets_a_lease_and_again_when_it_was_given_back(store: ObjectStore) -> None:
    assert [takers_that_win(store, 4, 60.0) for _ in range(2)] == [1, 1]


def test_one_of_many_gets_the_lease_of_a_process_that_died(store: ObjectStore) -> None:
    """Nothing is given back by the dead: the store's clock alone tells."""
    assert store.create("lease", b"dead", {"holder": "dead"})
    assert Lease(store, "lease", 60.0).is_held()
    wait_until(lambda: not Lease(store, "lease", 1.0).is_held(), "the lease's end", 10)
    assert takers_that_win(store, 4, 1.0) == 1


def test_a_lease_that_is_renewed_does_not_end(store: ObjectStore) -> None:
    with Lease(store, "lease", 3.0, 0.1).taken() as ours:
        assert ours
        wait_until(lambda: _age_of_the_clock(store) > 4, "more than a lease", 20)
        with Lease(store, "lease", 3.0).taken() as also:
            assert not also
    assert not Lease(store, "lease", 60.0).is_held()


def _age_of_the_clock(store: ObjectStore) -> float:
    """Seconds of the store's clock since an object that is never written again was written."""
    store.create("clock", b"")
    found = store.look("clock")
    assert found is not None
    return found.age_s


def test_a_holder_that_was_held_up_does_not_take_the_lease_back(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    with Lease(store, "lease", 60.0, 0.05).taken() as ours:
        assert ours
        wait_until(lambda: _replaced(store), "a successor", 10)
        wait_until(lambda: "was lost" in caplog.text, "the refusal", 10)
    found = store.look("lease")
    assert found is not None and found.notes["holder"] == "successor"


def _replaced(store: ObjectStore) -> bool:
    found = store.look("lease")
    return found is not None and store.replace("lease", b"successor", {"holder": "successor"}, found.etag) is not None
