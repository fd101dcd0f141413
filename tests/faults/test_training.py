"""Fine-tunings under kills: every job ends, from its newest checkpoint, and its log is told whole and once.

Each test holds a run in the middle of a step, kills something, and lets go.
"""

import fcntl
import signal
import time
from collections.abc import Iterator

import pytest

from pipelines.launching.local_target import processes, signal_all, supervisors
from pipelines.launching.targets import run_name
from services.errors import Gone
from services.jobs.celery_app import SWEEP_S
from services.wire.keys import TRAININGS_QUEUE
from tests.end_to_end.system import wait_until
from tests.faults.conftest import Outcome
from tests.pipelines.celery.training_processes import Trainings, running_trainings
from tests.pipelines.launching.contract import STEPS


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with running_trainings(tmp_path_factory.mktemp("faults"), appendfsync="always") as made:
        yield made


@pytest.fixture
def trainings(system: Trainings) -> Iterator[Trainings]:
    """All roles run, and nothing does afterwards."""
    system.all_roles()
    yield system
    system.kill_all()
    system.kill_runs()


def resumed_at(trainings: Trainings, name: str) -> list[int]:
    return [int(each["step"]) for each in trainings.progress(name).resumes]


def test_a_run_goes_on_while_every_process_of_ours_is_killed(trainings: Trainings, outcome: Outcome) -> None:
    trainings.submit("orphaned")
    trainings.at_step("orphaned", 2)
    trainings.kill_all()
    trainings.let("orphaned", 4)
    log = trainings.out("orphaned") / ".run" / "train.log"
    wait_until(lambda: "step 4 is done" in log.read_text(), "steps that nobody looks at")
    trainings.all_roles()
    wait_until(lambda: trainings.progress("orphaned").records == 4, "what was told meanwhile", 30)
    trainings.let("orphaned", STEPS)
    trainings.check("orphaned")
    assert trainings.starts("orphaned") == 1
    outcome("train: all workers SIGKILL", requests=1, result="the run went on; log whole and once")


def test_a_worker_killed_again_and_again_loses_and_repeats_no_line(trainings: Trainings, outcome: Outcome) -> None:
    worker = trainings.processes[-1]
    trainings.submit("often")
    for step in range(1, STEPS):
        trainings.let("often", step)
        trainings.launched("often")
        for child in trainings.children(worker):
            child.kill()  # in the middle of whatever it does
        trainings.at_step("often", step)
        trainings.kill(worker)
        worker = trainings.role("trainings")
    trainings.let("often", STEPS)
    trainings.check("often")
    assert trainings.starts("often") == 1
    outcome("train: worker SIGKILL", times=2 * (STEPS - 1), requests=1, result="log whole and once")


def test_a_killed_supervisor_has_its_run_save_and_go_on(trainings: Trainings, outcome: Outcome) -> None:
    trainings.submit("supervisor")
    trainings.at_step("supervisor", 3)
    signal_all(supervisors(trainings.launched("supervisor")), signal.SIGKILL)
    wait_until(lambda: resumed_at(trainings, "supervisor") == [3], "the next start", 30)
    trainings.let("supervisor", STEPS)
    trainings.check("supervisor")
    assert trainings.starts("supervisor") == 2
    assert trainings.progress("supervisor").outcome["recoveries"] == 1
    outcome("train: supervisor SIGKILL", requests=1, result="saved, resumed at its step")


def test_after_a_power_failure_a_job_goes_on_from_its_newest_checkpoint(trainings: Trainings, outcome: Outcome) -> None:
    trainings.submit("power")
    trainings.at_step("power", 3)
    trainings.kill_all()
    trainings.kill_runs()
    trainings.server.kill()
    trainings.server.start()
    trainings.all_roles()
    since = time.monotonic()
    wait_until(lambda: resumed_at(trainings, "power") == [2], "the next start", 30)
    took_s = time.monotonic() - since
    trainings.let("power", STEPS)
    assert trainings.ended("power").state == "finished"
    told = trainings.steps_told("power")
    assert told == {f"step {n} is done": 2 if n == 3 else 1 for n in range(1, STEPS + 1)}, "step 3 was done twice"
    assert [point["step"] for point in trainings.jobs.points("power")] == list(range(1, STEPS + 1))
    outcome("train: power failure", requests=1, result=f"resumed at its checkpoint after {took_s:.0f} s")


def test_redis_killed_while_a_run_goes_on_costs_nothing(trainings: Trainings, outcome: Outcome) -> None:
    trainings.submit("redis")
    trainings.at_step("redis", 2)
    trainings.server.kill()
    trainings.let("redis", STEPS)
    model = trainings.out("redis") / "model" / "manifest.json"
    wait_until(model.exists, "the end of the run")
    trainings.server.start()
    trainings.check("redis")
    assert trainings.starts("redis") == 1
    outcome("train: Redis SIGKILL + restart", requests=1, result="log whole and once")


def test_lost_messages_are_sent_again(trainings: Trainings, outcome: Outcome) -> None:
    worker = trainings.processes[-1]
    trainings.kill(worker)
    trainings.submit("lost")
    queue = trainings.keys.celery + TRAININGS_QUEUE
    wait_until(lambda: trainings.redis.exists(queue), "its message", 3 * SWEEP_S)
    trainings.redis.delete(queue)
    trainings.role("trainings")
    trainings.let("lost", STEPS)
    trainings.check("lost")
    outcome("train: messages lost", requests=1)


def test_without_a_beat_nothing_is_seen_and_with_it_again_everything(trainings: Trainings, outcome: Outcome) -> None:
    beat = trainings.processes[-3]
    trainings.submit("no-beat")
    trainings.at_step("no-beat", 1)
    beat.kill()
    beat.wait(10)
    trainings.let("no-beat", STEPS)
    model = trainings.out("no-beat") / "model" / "manifest.json"
    wait_until(model.exists, "the end of the run")
    trainings.role("beat")
    trainings.check("no-beat")
    outcome("train: beat SIGKILL", requests=1, result="log whole and once")


def test_a_job_that_redis_lost_is_taken_over_when_it_is_submitted_again(trainings: Trainings, outcome: Outcome) -> None:
    trainings.submit("emptied")
    trainings.at_step("emptied", 2)
    first = trainings.launched("emptied")
    trainings.redis.flushall()
    with pytest.raises(Gone):
        trainings.jobs.get("emptied")
    trainings.let("emptied", 4)
    log = trainings.out("emptied") / ".run" / "train.log"
    wait_until(lambda: "step 4 is done" in log.read_text(), "steps of a run without a job")
    trainings.submit("emptied")
    trainings.at_step("emptied", 4)
    assert trainings.jobs.get("emptied").remote["name"] == first
    trainings.let("emptied", STEPS)
    trainings.check("emptied")
    assert trainings.starts("emptied") == 1
    outcome("train: Redis emptied", requests=1, result="submitted again it is the same run")


def test_a_cancel_ends_a_run_though_its_supervisor_is_dead(trainings: Trainings, outcome: Outcome) -> None:
    trainings.submit("cancelled")
    trainings.at_step("cancelled", 1)
    name = trainings.launched("cancelled")
    trainings.jobs.cancel("cancelled")
    signal_all(supervisors(name), signal.SIGKILL)
    assert trainings.ended("cancelled").state == "cancelled"
    assert not processes(name) and name == run_name("cancelled", trainings.jobs.get("cancelled").started_s)
    assert trainings.starts("cancelled") == 1
    outcome("train: cancel + supervisor SIGKILL", requests=1, result="ended, not started again")


def test_a_look_that_hangs_is_killed_and_another_is_sent(system: Trainings, outcome: Outcome) -> None:
    system.environment["TEST_HUNG_AFTER_S"] = "3"
    try:
        system.all_roles()
        system.submit("hangs")
        system.at_step("hangs", 1)
        log = system.folder / f"process-{len(system.processes) - 1}.log"
        with (system.out("hangs") / ".run" / "turn").open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # as a cloud that does not answer
            wait_until(lambda: b"Hard time limit" in log.read_bytes(), "the end of the look", 30)
        system.let("hangs", STEPS)
        system.check("hangs")
        assert system.starts("hangs") == 1
    finally:
        del system.environment["TEST_HUNG_AFTER_S"]
        system.kill_all()
        system.kill_runs()
    outcome("train: a look that hangs", requests=1, result="superseded; log whole and once")
