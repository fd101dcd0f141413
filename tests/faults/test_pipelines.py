"""Cleaning under kills: every job ends with the bytes of an undisturbed run, and no shard is done twice.

Each test stops the worker's children in the middle of a shard, hurts something, and lets go. Recovery times are those
that docs/reliability.md tells.
"""

import time
from collections.abc import Iterator

import pytest

from pipelines.celery.cleaning_tasks import NOTE_S
from pipelines.cleaning.units import Unit
from services.errors import Gone, InvalidRequest
from services.jobs.celery_app import SOFT_SHUTDOWN_S, SWEEP_S
from services.jobs.dispatch import Dispatch
from services.jobs.jobs import Job
from tests.end_to_end.system import wait_until
from tests.faults.conftest import Outcome
from tests.pipelines.celery.cleaning_processes import Pipelines, running_pipelines

AT_ONCE_S = 3 * SWEEP_S + 4  # a sweep or two, and a process to start on a busy machine; far from any time-out of Celery


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipelines]:
    folder = tmp_path_factory.mktemp("faults")
    with running_pipelines(folder, num_records=6000, num_words=250, shard_mib=2.5, appendfsync="always") as made:
        yield made


@pytest.fixture
def pipelines(system: Pipelines) -> Iterator[Pipelines]:
    """Nothing runs yet, and nothing does afterwards."""
    yield system
    system.kill_all()


def begun_again_s(pipelines: Pipelines, name: str, unit: str, since: float) -> float:
    """Seconds until a process works on the unit again, or it is done."""
    wait_until(
        lambda: pipelines.is_held(name, unit) or pipelines.cleaning(name).done(Unit.parse(unit)),
        "a new start",
        60,
    )
    return time.monotonic() - since


def test_a_worker_that_is_killed_is_replaced_within_a_sweep(pipelines: Pipelines, outcome: Outcome) -> None:
    pipelines.beat()
    worker = pipelines.worker()
    pipelines.submit("killed-worker")
    unit = pipelines.stop_mid_shard(worker, "killed-worker")
    pipelines.kill(worker)
    pipelines.worker()
    took_s = begun_again_s(pipelines, "killed-worker", unit, time.monotonic())
    assert took_s < AT_ONCE_S
    pipelines.check("killed-worker")
    assert any(f"{unit}: its process" in line and "is gone" in line for line in pipelines.lines("killed-worker"))
    outcome("clean: worker SIGKILL", requests=1, result=f"same bytes; goes on after {took_s:.1f} s")


def test_workers_killed_again_and_again_still_end_with_the_same_bytes(pipelines: Pipelines, outcome: Outcome) -> None:
    pipelines.beat()
    pipelines.submit("often")
    for _ in range(3):
        worker = pipelines.worker()
        pipelines.stop_mid_shard(worker, "often")
        pipelines.kill(worker)
    pipelines.worker()
    pipelines.check("often")
    outcome("clean: worker SIGKILL", times=3, requests=1, result="same bytes")


def test_a_child_that_is_killed_costs_its_unit_only(pipelines: Pipelines, outcome: Outcome) -> None:
    """As the kernel does it for want of memory: Celery sees it and gives the message back."""
    pipelines.beat()
    worker = pipelines.worker()
    pipelines.submit("killed-child")
    unit = pipelines.stop_mid_shard(worker, "killed-child")
    holder = Dispatch(pipelines.redis, pipelines.keys, "killed-child").read().held[unit]
    for child in pipelines.children(worker):
        if holder.endswith(f":{child.pid}"):
            child.kill()
            child.wait(10)
            killed = time.monotonic()
        else:
            child.resume()
    took_s = begun_again_s(pipelines, "killed-child", unit, killed)
    assert took_s < AT_ONCE_S
    pipelines.check("killed-child")
    assert worker.poll() is None
    outcome("clean: child SIGKILL", requests=1, result=f"same bytes; goes on after {took_s:.1f} s")


def test_redis_killed_mid_shard_stops_no_unit(pipelines: Pipelines, outcome: Outcome) -> None:
    pipelines.beat()
    worker = pipelines.worker()
    pipelines.submit("killed-redis")
    pipelines.stop_mid_shard(worker, "killed-redis")
    pipelines.server.kill()
    for child in pipelines.children(worker):
        child.resume()
    wait_until(lambda: not list((pipelines.folder / "killed-redis/.work").glob("tmp-shard*")), "the units' end", 30)
    pipelines.server.start()
    back = time.monotonic()
    pipelines.check("killed-redis")
    took_s = time.monotonic() - back
    assert worker.poll() is None
    outcome("clean: Redis SIGKILL + restart", requests=1, result=f"same bytes; finished {took_s:.0f} s after")


def test_a_redis_that_lost_everything_is_told_of_the_job_by_who_works_on_it(
    pipelines: Pipelines, outcome: Outcome
) -> None:
    pipelines.beat()
    worker = pipelines.worker()
    pipelines.submit("emptied")
    pipelines.stop_mid_shard(worker, "emptied")
    done_before = {path.name for path in (pipelines.folder / "emptied/.work").glob("shard-*")}
    pipelines.redis.flushall()
    with pytest.raises(Gone):
        pipelines.jobs.get("emptied")
    for child in pipelines.children(worker):
        child.resume()
    wait_until(lambda: any(job.id == "emptied" for job in pipelines.jobs.list()), "the job's return", 30)
    pipelines.check("emptied")
    assert not done_before & set(pipelines.times_done("emptied")), "what was done is not done again"
    outcome("clean: Redis emptied", requests=1, result="same bytes; the job came back by itself")


def test_lost_messages_are_sent_again(pipelines: Pipelines, outcome: Outcome) -> None:
    pipelines.beat()
    pipelines.submit("lost")
    wait_until(lambda: pipelines.redis.exists(pipelines.keys.celery + "sweeps"), "the wake-up")
    pipelines.redis.delete(pipelines.keys.celery + "sweeps")
    worker = pipelines.worker()
    pipelines.stop_mid_shard(worker, "lost")
    pipelines.redis.delete(pipelines.keys.celery + "units")
    for child in pipelines.children(worker):
        child.resume()
    pipelines.check("lost")
    outcome("clean: messages lost", times=2, requests=1, result="same bytes")


def test_without_a_beat_a_job_runs_and_with_it_again_recovers(pipelines: Pipelines, outcome: Outcome) -> None:
    beat = pipelines.beat()
    worker = pipelines.worker()
    pipelines.submit("no-beat")
    unit = pipelines.stop_mid_shard(worker, "no-beat")
    beat.kill()
    pipelines.kill(worker)
    pipelines.worker()
    assert not pipelines.is_held("no-beat", unit)
    pipelines.beat()
    pipelines.check("no-beat")
    beat = pipelines.processes[-1]
    beat.kill()
    beat.wait(10)
    pipelines.submit("never-a-beat")
    pipelines.check("never-a-beat")
    outcome("clean: beat SIGKILL", times=2, requests=2, result="same bytes")


def test_a_worker_that_is_told_to_end_gives_back_what_runs(pipelines: Pipelines, outcome: Outcome) -> None:
    pipelines.beat()
    worker = pipelines.worker()
    pipelines.submit("stopped")
    unit = pipelines.stop_mid_shard(worker, "stopped")
    children = pipelines.children(worker)
    asked = time.monotonic()
    worker.terminate()
    log = pipelines.folder / f"process-{len(pipelines.processes) - 1}.log"
    wait_until(lambda: b"Initiating Soft Shutdown" in log.read_bytes(), "the soft shutdown")
    over = time.monotonic() + SOFT_SHUTDOWN_S
    wait_until(lambda: time.monotonic() > over, "the end of the time that a unit is given")  # it takes longer
    for child in children:
        child.resume()
    assert worker.wait(10) == 0
    ended_s = time.monotonic() - asked
    assert SOFT_SHUTDOWN_S <= ended_s < 9, "Docker kills after 10 s"
    assert not pipelines.is_held("stopped", unit)
    starts = pipelines.redis.hget(pipelines.keys.job("stopped").tasks, f"starts {unit}")
    assert starts is None, "an orderly end is no death"
    restarted = time.monotonic()
    pipelines.worker()
    took_s = begun_again_s(pipelines, "stopped", unit, restarted)
    pipelines.check("stopped")
    outcome(
        "clean: worker SIGTERM", requests=1, result=f"ended in {ended_s:.1f} s, same bytes; on after {took_s:.1f} s"
    )


def test_a_cancel_ends_a_shard_in_its_middle(pipelines: Pipelines, outcome: Outcome) -> None:
    pipelines.beat()
    worker = pipelines.worker()
    pipelines.submit("cancelled")
    unit = pipelines.stop_mid_shard(worker, "cancelled")
    assert pipelines.jobs.cancel("cancelled").cancelling
    next_note = time.monotonic() + NOTE_S
    with pytest.raises(InvalidRequest):
        pipelines.jobs.remove("cancelled")
    wait_until(lambda: time.monotonic() > next_note, "the time at which the shard looks again")
    for child in pipelines.children(worker):
        child.resume()
    resumed = time.monotonic()
    job: Job = pipelines.ended("cancelled")
    took_s = time.monotonic() - resumed
    assert job.state == "cancelled"
    assert not pipelines.cleaning("cancelled").done(Unit.parse(unit)), "it did not wait for the shard's end"
    pipelines.submit("cancelled")
    pipelines.check("cancelled")
    outcome("clean: cancel mid-shard", requests=1, result=f"ended after {took_s:.1f} s; re-submit: same bytes")
