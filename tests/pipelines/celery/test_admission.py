"""Which jobs the pipelines refuse: a stranger's in Redis, and inputs that lie elsewhere."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from pipelines.celery.admission import SIGNED, Admission, adopt_older_jobs
from services.errors import ConfigurationError, Conflict
from services.jobs.jobs import Jobs
from services.jobs.signature import job_key
from services.settings import Settings, load_settings
from services.wire.keys import Keys
from tests.end_to_end.system import wait_until
from tests.pipelines.celery.cleaning_processes import Pipelines, running_pipelines

SPEC = {"inputs": ["/data/in.json"], "out": "/data/out"}


@pytest.fixture
def jobs(redis_client: redis.Redis, namespace: str) -> Jobs:
    return Jobs(redis_client, Keys(namespace), b"our key")


@pytest.fixture
def strangers(redis_client: redis.Redis, namespace: str) -> Jobs:
    """Those of somebody who can write to Redis and has no key."""
    return Jobs(redis_client, Keys(namespace))


def test_a_job_of_ours_is_done_and_one_of_a_stranger_is_refused_with_the_remedy(jobs: Jobs, strangers: Jobs) -> None:
    Admission().check(jobs, jobs.submit("ours", "clean", "ours", SPEC), SPEC["inputs"])
    theirs = strangers.submit("theirs", "clean", "theirs", SPEC)
    with pytest.raises(ConfigurationError, match=r"'theirs' has no signature .* submit it again .*CHATSERVER_JOB_KEY"):
        Admission().check(jobs, theirs, SPEC["inputs"])


def test_a_key_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(ConfigurationError, match=r"a-file/job_key, cannot be used") as refusal:
        job_key(Settings(state_dir=tmp_path / "a-file"))
    assert "CHATSERVER_JOB_KEY" in refusal.value.remedy
    assert job_key(Settings(state_dir=tmp_path / "a-file", job_key="given")) == b"given"


@pytest.mark.parametrize(("field", "value"), [("spec", '{"inputs":["/etc/passwd"],"out":"/data/out"}'), ("kind", "x")])
def test_a_signature_is_of_one_job_alone(
    jobs: Jobs, redis_client: redis.Redis, namespace: str, field: str, value: str
) -> None:
    keys = Keys(namespace)
    ours = jobs.submit("ours", "clean", "ours", SPEC)
    redis_client.hset(keys.job("ours").job, field, value)
    assert not jobs.signed(jobs.get("ours"))
    redis_client.hset(keys.job("copy").job, mapping=redis_client.hgetall(keys.job("ours").job))
    redis_client.hset(
        keys.job("copy").job, mapping={"kind": "clean", "spec": b'{"inputs":["/data/in.json"],"out":"/data/out"}'}
    )
    assert jobs.get("copy").signature == ours.signature and not jobs.signed(jobs.get("copy"))


def test_a_job_of_a_stranger_is_not_signed_by_who_starts_it_again(jobs: Jobs, strangers: Jobs) -> None:
    strangers.submit("theirs", "clean", "theirs", SPEC)
    jobs.failed("theirs", "refused", "failed")
    with pytest.raises(Conflict, match="no signature"):
        jobs.resubmit(jobs.get("theirs"))
    assert jobs.signed(jobs.submit("theirs", "clean", "theirs", SPEC)), "who gives the spec knows what it says"
    jobs.failed("theirs", "failed", "failed")
    assert jobs.resubmit(jobs.get("theirs")).state == "submitted"


def test_another_key_does_not_replace_the_signature_of_a_job_that_runs(
    jobs: Jobs, redis_client: redis.Redis, namespace: str
) -> None:
    jobs.submit("ours", "clean", "ours", SPEC)
    Jobs(redis_client, Keys(namespace), b"another key").submit("ours", "clean", "ours", SPEC)
    assert jobs.signed(jobs.get("ours"))


def test_jobs_of_an_older_build_are_signed_at_the_first_start_and_none_later(
    jobs: Jobs, strangers: Jobs, tmp_path: Path
) -> None:
    for jid in ("running", "ended"):
        strangers.submit(jid, "clean", jid, SPEC)
        jobs.started(jid)
    jobs.failed("ended", "", "")
    adopt_older_jobs(jobs, tmp_path / "state")
    assert all(jobs.signed(jobs.get(jid)) for jid in ("running", "ended"))
    assert (tmp_path / "state" / SIGNED).exists()
    strangers.submit("later", "clean", "later", SPEC)
    adopt_older_jobs(jobs, tmp_path / "state")
    assert not jobs.signed(jobs.get("later"))


def test_batches_of_an_older_build_are_listed_for_their_users_at_each_start(
    jobs: Jobs, redis_client: redis.Redis, namespace: str, tmp_path: Path
) -> None:
    for jid, user in (("batch_1", "ann"), ("batch_2", "bob"), ("batch_3", "ann")):
        jobs.submit(jid, "batch", jid, {"user": user})
        redis_client.delete(Keys(namespace).owned_jobs(user, "batch"))
    jobs.submit("clean", "clean", "clean", SPEC)
    adopt_older_jobs(jobs, tmp_path / "state")
    assert list(jobs.owners.times("ann", "batch")) == ["batch_1", "batch_3"]
    redis_client.delete(Keys(namespace).owned_jobs("bob", "batch"))  # as if an older build had run once more
    adopt_older_jobs(jobs, tmp_path / "state")
    assert list(jobs.owners.times("bob", "batch")) == ["batch_2"]


def test_an_input_outside_the_folders_or_of_another_scheme_is_refused_with_what_is_allowed(
    jobs: Jobs, tmp_path: Path
) -> None:
    job = jobs.submit("ours", "clean", "ours", SPEC)
    data, link = tmp_path / "data", tmp_path / "data" / "link"
    data.mkdir()
    link.symlink_to("/etc/passwd")
    admission = Admission([data], ["https"])
    admission.check(jobs, job, [str(data / "in.json"), "https://example.org/in.json"])
    for name in ("/etc/passwd", f"{data}/../secret", str(link), f"{data}-beside/in.json"):
        with pytest.raises(ConfigurationError, match=r"no folder that jobs may read .*CHATSERVER_INPUT_ROOTS"):
            admission.check(jobs, job, [name])
    for name in ("file:///etc/passwd", "http://169.254.169.254/", "simplecache::https://example.org/a", "HTTPS://a/b"):
        with pytest.raises(ConfigurationError, match=r"scheme that jobs may read .https.*CHATSERVER_INPUT_SCHEMES"):
            admission.check(jobs, job, [name])


def test_a_url_of_this_machine_is_a_path(jobs: Jobs, tmp_path: Path) -> None:
    job, admission = jobs.submit("ours", "clean", "ours", SPEC), Admission([tmp_path], [])
    admission.check(jobs, job, [f"file://{tmp_path}/in.json"])
    for name in ("file:///etc/passwd", "local:///etc/passwd"):
        with pytest.raises(ConfigurationError, match="no folder that jobs may read"):
            admission.check(jobs, job, [name])


def test_without_a_setting_a_job_reads_what_its_process_may(jobs: Jobs) -> None:
    job = jobs.submit("ours", "clean", "ours", SPEC)
    Admission.from_settings(load_settings({})).check(jobs, job, ["/etc/passwd", "s3://bucket/a.json"])


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipelines]:
    folder = tmp_path_factory.mktemp("pipelines")
    with running_pipelines(folder, num_records=20, num_words=10, shard_mib=0.04) as system:
        system.environment["CHATSERVER_INPUT_ROOTS"] = str(folder)
        yield system


@pytest.fixture(scope="module")
def worker(pipelines: Pipelines) -> subprocess.Popen[bytes]:
    pipelines.beat()
    return pipelines.worker()


def test_a_worker_of_the_pipelines_reads_nothing_for_a_stranger(
    pipelines: Pipelines, worker: subprocess.Popen[bytes]
) -> None:
    forger = Jobs(pipelines.redis, pipelines.keys)
    out = pipelines.folder / "stolen"
    spec = {"recipe": pipelines.recipe, "recipe_name": "r.yaml", "inputs": [str(pipelines.source)], "out": str(out)}
    forger.submit("stolen", "clean", "stolen", spec)
    forger.submit("trained", "train", "trained", {"on": "local", "data": ["/etc/passwd"]})
    for jid in ("stolen", "trained"):
        wait_until(lambda jid=jid: forger.get(jid).ended, "the refusal", 30)
        assert forger.get(jid).state == "failed" and "has no signature" in forger.get(jid).error
    assert not out.exists()


def test_a_worker_of_the_pipelines_reads_in_its_folders_only(
    pipelines: Pipelines, worker: subprocess.Popen[bytes]
) -> None:
    spec = {
        "recipe": pipelines.recipe,
        "recipe_name": "r.yaml",
        "inputs": ["/etc/passwd"],
        "out": str(pipelines.folder / "elsewhere"),
    }
    pipelines.jobs.submit("elsewhere", "clean", "elsewhere", spec)
    wait_until(lambda: pipelines.jobs.get("elsewhere").ended, "the refusal", 30)
    assert "/etc/passwd is in no folder that jobs may read" in pipelines.jobs.get("elsewhere").error
