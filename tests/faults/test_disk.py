"""The disk of Redis is full: what runs ends or waits, what is new is refused with the reason, and room heals all."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import redis

from tests.end_to_end.system import Browser, answers, wait_until
from tests.faults.conftest import Outcome
from tests.faults.disk import SmallDisk
from tests.faults.scenario import Scenario, shared_system
from tests.faults.system import FaultSystem
from tests.faults.tabs import Question

DISK_BYTES = 200 << 20
RATE = ("--rate", "40")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("disk")
    with (
        SmallDisk(folder / "redis", DISK_BYTES) as disk,
        shared_system(folder, worker_options=RATE, binary=redis_binary, disk=disk) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def patient_system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    """Under `everysec` Redis stays and answers MISCONF to every write."""
    folder = tmp_path_factory.mktemp("disk-everysec")
    with (
        SmallDisk(folder / "redis", DISK_BYTES) as disk,
        shared_system(folder, worker_options=RATE, binary=redis_binary, disk=disk, appendfsync="everysec") as made,
    ):
        yield made


@pytest.fixture
def patient(patient_system: FaultSystem) -> Iterator[Scenario]:
    made = Scenario(patient_system)
    yield made
    made.heal()


def refusal(url: str) -> dict[str, object]:
    """What `/readyz` says of a web process that is not ready."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/readyz", timeout=10)
    assert caught.value.code == 503
    found: dict[str, object] = orjson.loads(caught.value.read())["error"]
    return found


def refuses_to_write(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ResponseError as error:
        return str(error).startswith("MISCONF")
    return False


def test_on_the_reserve_running_answers_end_and_new_questions_learn_why_they_are_refused(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    assert system.keep_redis()
    wait_until(lambda: system.keep_redis() and (system.server.folder / "reserve").exists(), "the reserve")
    url = system.of_kind("web")[0].url
    browser = Browser(url)
    asked = [scenario.ask(scenario.tab(), Question(f"reserve-{number}", "hello", 120)) for number in range(4)]
    for number in range(4):
        scenario.wait_for_tokens(f"reserve-{number}", 10)
    system.fill_disk()
    wait_until(lambda: not system.server.running(), "the end of a Redis that cannot write")
    wait_until(system.keep_redis, "its return on the reserve")
    refused = browser.ask("reserve-new", "hello", model=system.queue.model)["error"]
    assert refused["code"] == "unavailable" and refused["retry_after_s"] > 0
    assert f"the disk of {system.server.folder} is full: free " in refused["message"]
    assert f"the disk of {system.server.folder} is full: free " in str(refusal(url)["message"])
    assert [reading.result().done[0]["status"] for reading in asked] == ["finished"] * 4
    system.free_disk()
    wait_until(lambda: system.keep_redis() and (system.server.folder / "reserve").exists(), "a new reserve")
    assert answers(f"{url}/readyz")
    assert browser.ask("reserve-new", "hello", model=system.queue.model, max_new_tokens=5)["ok"]
    browser.wait_for_done("reserve-new")
    browser.close()
    scenario.judge()
    outcome("disk full, reserve kept", requests=5, result="the running ended, the new was told why")


def test_without_a_byte_everything_waits_and_goes_on_in_the_same_sentence(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    url = system.of_kind("web")[0].url
    browser = Browser(url)
    asked = [scenario.ask(scenario.tab(), Question(f"waits-{number}", "hello", 300)) for number in range(2)]
    asked.append(scenario.ask(scenario.terminal(), Question("waits-2", "hello", 300)))
    for number in range(3):
        scenario.wait_for_tokens(f"waits-{number}", 10)
    system.fill_disk(reserve_too=True)
    wait_until(lambda: not system.server.running(), "the end of a Redis that cannot write")
    assert not system.keep_redis()
    assert f"the disk of {system.server.folder} is full: free 0 MiB" in str(refusal(url)["message"])
    refused = browser.ask("waits-new", "hello", model=system.queue.model)["error"]
    assert refused["code"] == "unavailable" and "is full: free 0 MiB" in refused["message"]
    assert not any(reading.done() for reading in asked)
    system.free_disk()
    wait_until(system.keep_redis, "the start of Redis")
    assert [reading.result().done[0]["status"] for reading in asked] == ["finished"] * 3
    assert {scenario.head(f"waits-{number}").status for number in range(3)} == {"finished"}
    browser.close()
    scenario.judge()
    outcome("disk full and freed", requests=4, result="waited, went on, nobody lost a token")


def test_a_redis_that_answers_misconf_is_waited_for(
    patient_system: FaultSystem, patient: Scenario, outcome: Outcome
) -> None:
    system = patient_system
    url = system.of_kind("web")[0].url
    asked = [patient.ask(patient.tab(), Question(f"misconf-{number}", "hello", 120)) for number in range(3)]
    for number in range(3):
        patient.wait_for_tokens(f"misconf-{number}", 10)
    system.fill_disk(reserve_too=True)
    wait_until(lambda: refuses_to_write(system.redis), "MISCONF")
    browser = Browser(url)
    assert "is full: free 0 MiB" in browser.ask("misconf-new", "hello", model=system.queue.model)["error"]["message"]
    assert "is full: free 0 MiB" in str(refusal(url)["message"])
    assert system.server.running()
    system.free_disk()
    assert [reading.result().done[0]["status"] for reading in asked] == ["finished"] * 3
    wait_until(lambda: answers(f"{url}/readyz"), "readiness")
    browser.close()
    patient.judge()
    outcome("disk full under everysec (MISCONF)", requests=4, result="waited, went on, nobody lost a token")
