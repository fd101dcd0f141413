"""Batches under kills: every line is answered once, and the files are whole.

`num_queued` counts what was ever put into the queue: a line that was asked a second time would show there.
"""

import time
from collections.abc import Iterator

import pytest

from services.jobs.celery_app import SWEEP_S
from services.jobs.jobs import Job
from tests.end_to_end.system import wait_until
from tests.faults.conftest import Outcome
from tests.pipelines.celery.batch_processes import BatchSystem, as_file, chat_lines, running_batches, text_of

NUM_LINES = 150
LENGTH = 60  # of each answer, which is some tens of engine steps
AT_ONCE_S = 3 * SWEEP_S + 4  # a sweep or two, and a process to start on a busy machine
WORKER = ("--model", "echo", "--rate", "20", "--chunk", "4", "--slots", "8")


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchSystem]:
    with running_batches(tmp_path_factory.mktemp("faults"), appendfsync="always") as made:
        yield made


def under_way(system: BatchSystem) -> Job:
    """A batch of which some lines are committed, and others are being answered."""
    job = system.submit(as_file(chat_lines(NUM_LINES, LENGTH)))
    wait_until(lambda: 0 < system.progress(job).answered < NUM_LINES - 20, "the first answers", 60)
    return job


def check(system: BatchSystem, job: Job) -> None:
    """Finished; each line is answered once, in full and in order, and was put into the queue once."""
    job = system.ended(job)
    assert job.state == "finished", job.error
    output = system.output(job)
    assert [each["custom_id"] for each in output] == [f"q{index}" for index in range(NUM_LINES)]
    assert [text_of(each) for each in output] == [f"{index} {'x' * LENGTH}" for index in range(NUM_LINES)]
    assert system.errors(job) == []
    progress = system.progress(job)
    assert (progress.answered, progress.failed, progress.of) == (NUM_LINES, 0, NUM_LINES)
    assert system.num_queued("echo") == len(system.asked(job)) == NUM_LINES


def test_who_asks_is_killed_again_and_again(system: BatchSystem, outcome: Outcome) -> None:
    asker = system.pipelines()
    system.echo_worker(*WORKER)
    job = under_way(system)
    for _ in range(3):
        system.kill(asker)
        done = system.progress(job).answered
        asker = system.asker()
        since = time.monotonic()
        wait_until(lambda done=done: system.progress(job).answered > done, "further answers", 30)
        took_s = time.monotonic() - since
    assert took_s < AT_ONCE_S
    check(system, job)
    outcome("batch: asker SIGKILL", times=3, requests=NUM_LINES, result=f"each line once; on after {took_s:.1f} s")


def test_the_gpu_worker_is_killed_in_the_middle_of_answers(system: BatchSystem, outcome: Outcome) -> None:
    system.pipelines()
    worker = system.echo_worker(*WORKER)
    job = under_way(system)
    for _ in range(2):
        worker.kill()
        worker.wait(10)
        worker = system.echo_worker(*WORKER)
    check(system, job)
    outcome("batch: GPU worker SIGKILL", times=2, requests=NUM_LINES, result="each line once, whole")


def test_redis_is_killed_and_comes_back(system: BatchSystem, outcome: Outcome) -> None:
    system.pipelines()
    system.echo_worker(*WORKER)
    job = under_way(system)
    system.server.kill()
    system.server.start()
    check(system, job)
    outcome("batch: Redis SIGKILL + restart", requests=NUM_LINES, result="each line once")


def test_lost_messages_are_sent_again(system: BatchSystem, outcome: Outcome) -> None:
    asker = system.pipelines()
    system.echo_worker(*WORKER)
    job = under_way(system)
    system.kill(asker)
    system.redis.delete(system.keys.celery + "batches", system.keys.celery + "unacked")
    system.asker()
    check(system, job)
    outcome("batch: messages lost", requests=NUM_LINES, result="each line once")


def test_all_die_at_once(system: BatchSystem, outcome: Outcome) -> None:
    system.pipelines()
    system.echo_worker(*WORKER)
    job = under_way(system)
    system.kill_all()
    system.echo_worker(*WORKER)
    system.pipelines()
    check(system, job)
    outcome("batch: all processes SIGKILL", requests=NUM_LINES, result="each line once")
