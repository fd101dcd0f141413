"""One sweep for jobs of every kind."""

import logging

import pytest
import redis
from celery import Celery

from pipelines.celery.sweep import Sweep
from services.jobs.jobs import Job, Jobs
from services.wire.keys import ADVANCE_TASK, SWEEP_TASK, Keys


@pytest.fixture
def jobs(redis_client: redis.Redis, namespace: str) -> Jobs:
    return Jobs(redis_client, Keys(namespace))


@pytest.fixture
def advanced() -> list[str]:
    """Kind and id of the jobs that were brought forward."""
    return []


@pytest.fixture
def sweep(redis_client: redis.Redis, namespace: str, advanced: list[str]) -> Sweep:
    def note(job: Job) -> None:
        advanced.append(f"{job.kind} {job.id}")

    def fail(job: Job) -> None:
        raise ZeroDivisionError(job.id)

    app = Celery("test", set_as_current=False)
    made = Sweep(app, redis_client, Keys(namespace), {"clean": note, "train": note, "fails": fail})
    made.register()
    assert {ADVANCE_TASK, SWEEP_TASK} <= set(app.tasks)
    return made


def test_each_job_goes_to_the_tasks_of_its_kind(jobs: Jobs, sweep: Sweep, advanced: list[str]) -> None:
    jobs.submit("a", "clean", "a", {})
    jobs.submit("b", "train", "b", {})
    sweep.sweep()
    assert sorted(advanced) == ["clean a", "train b"]


def test_a_job_that_a_web_process_of_an_older_build_accepted_is_listed_for_its_user(
    jobs: Jobs, sweep: Sweep, redis_client: redis.Redis, namespace: str
) -> None:
    jobs.submit("b", "train", "b", {"fine_tuning": {"user": "ann"}})
    jobs.started("b")  # an older sweep may have sent it to its task already
    redis_client.delete(Keys(namespace).owned_jobs("ann", "train"))
    sweep.sweep()
    assert list(jobs.owners.times("ann", "train")) == ["b"]


def test_a_job_that_ended_or_is_gone_is_left_alone(jobs: Jobs, sweep: Sweep, advanced: list[str]) -> None:
    jobs.submit("over", "clean", "over", {})
    jobs.failed("over", "by a test")
    sweep.sweep()
    sweep.advance("over")
    sweep.advance("never-was")
    assert not advanced


@pytest.mark.parametrize("kind", ["fails", "of-a-later-version"])
def test_a_job_that_cannot_be_advanced_does_not_keep_the_others_waiting(
    jobs: Jobs, sweep: Sweep, advanced: list[str], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.submit("a", "clean", "a", {})
    jobs.submit("b", kind, "b", {})
    jobs.submit("c", "train", "c", {})
    with caplog.at_level(logging.ERROR, "chatserver.pipelines"):
        sweep.sweep()
    assert sorted(advanced) == ["clean a", "train c"]
    assert "the job cannot be advanced" in caplog.text
