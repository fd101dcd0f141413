"""What programs of OpenAI's API suffer: workers, web processes and Redis die in the middle of their streams."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.end_to_end.system import wait_until
from tests.faults.conftest import Outcome
from tests.faults.programs import KINDS
from tests.faults.scenario import Scenario, shared_system
from tests.faults.system import FaultSystem
from tests.faults.tabs import Question, Reading

NUM_PROGRAMS = 4
TOKENS = 120  # three seconds at 40 steps a second


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("api")
    with shared_system(folder, worker_options=("--rate", "40", "--slots", "4"), binary=redis_binary) as made:
        yield made


def kill_workers(system: FaultSystem) -> None:
    """Each that answers, one after the other; the last one stays."""
    for part in system.of_kind("worker")[1:]:
        system.send_signal(part.name, signal.SIGKILL)


def stop_a_worker(system: FaultSystem) -> None:
    system.send_signal("worker-0", signal.SIGSTOP)


def kill_a_web(system: FaultSystem) -> None:
    system.send_signal("web-0", signal.SIGKILL)


def kill_both(system: FaultSystem) -> None:
    kill_a_web(system)
    kill_workers(system)


def cut_connections(system: FaultSystem) -> None:
    for part in system.parts.values():
        part.proxy.reset()


def kill_redis(system: FaultSystem) -> None:
    system.kill_redis()


FAULTS = {
    "workers SIGKILL": kill_workers,
    "worker SIGSTOP": stop_a_worker,
    "web SIGKILL": kill_a_web,
    "worker and web SIGKILL": kill_both,
    "connections to Redis reset": cut_connections,
    "Redis SIGKILL": kill_redis,
}


def half_read(asked: list[Future[Reading]], readings: list[Reading]) -> bool:
    return all(len(reading.text) > 10 or one.done() for one, reading in zip(asked, readings, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_program_reads_its_answer_once_and_whole(
    system: FaultSystem, scenario: Scenario, outcome: Outcome, kind: str, fault: str
) -> None:
    programs = [scenario.program(kind) for _ in range(NUM_PROGRAMS)]
    asked = [scenario.ask(program, Question(program.name, "hello", TOKENS)) for program in programs]
    readings = [program.readings[0] for program in programs]
    wait_until(lambda: half_read(asked, readings), "text at every program", 20)
    hurt: Callable[[FaultSystem], None] = FAULTS[fault]
    hurt(system)
    for one in asked:
        one.result(60)
    scenario.resume_workers()
    system.start_part("web-0")
    system.ready("web-0")  # the judge asks it as a stranger
    scenario.judge()
    assert {reading.done[0]["code"] for reading in readings} == {"length"}
    assert len({reading.rid for reading in readings}) == NUM_PROGRAMS
    outcome(f"{kind} over HTTP: {fault}", requests=NUM_PROGRAMS, result="whole, once")
