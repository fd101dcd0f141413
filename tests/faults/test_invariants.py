"""The judge of a run must see each kind of damage: an invariant that cannot fail proves nothing."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.wire.messages import Event
from tests.faults.invariants import violations
from tests.faults.system import FaultSystem, Loss, fault_system
from tests.faults.tabs import Behaviour, Question, Reading, Tab

Damage = Callable[[FaultSystem, Reading], object]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("judged")
    options = {"worker_options": ("--rate", "100"), "binary": redis_binary}
    with fault_system(folder, num_workers=1, num_webs=1, **options) as made:
        yield made


@pytest.fixture
def tab(system: FaultSystem, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab that has read one answer."""
    made = Tab("tab", [part.url for part in system.of_kind("web")])
    rid = f"r{abs(hash(request.node.name))}"
    assert made.run(Question(rid, "hello", 10), Behaviour(), time.monotonic() + 20).done
    made.close()
    system.idle()
    yield made
    system.redis.delete(system.keys.state(rid), system.keys.journal(rid))


def lose_state(system: FaultSystem, reading: Reading) -> None:
    system.redis.delete(system.keys.state(reading.rid), system.keys.journal(reading.rid))


def forget_end(system: FaultSystem, reading: Reading) -> None:
    journal = system.keys.journal(reading.rid)
    system.redis.xdel(journal, system.redis.xrevrange(journal, count=1)[0][0])
    system.redis.hset(system.keys.state(reading.rid), "status", "running")


def append(system: FaultSystem, reading: Reading, event: Event) -> None:
    system.redis.xadd(system.keys.journal(reading.rid), {"k": event.kind, "e": event.encode()}, id="9-*")


def end_twice(system: FaultSystem, reading: Reading) -> None:
    append(system, reading, Event("finished", reading.nonce, 10, len(reading.text)))


def generate_after_the_end(system: FaultSystem, reading: Reading) -> None:
    append(system, reading, Event("tokens", reading.nonce, 10, len(reading.text), (1,), "1𝄞"))


def asked_for(text: str) -> Damage:
    def change(system: FaultSystem, reading: Reading) -> None:
        reading.question = Question(reading.rid, text, 10)

    return change


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lose_state, "was accepted and is gone"),
        (forget_end, "was forgotten"),
        (end_twice, "2 ends"),
        (generate_after_the_end, "after the end"),
        (asked_for("raise@3"), "ended as finished"),
        (lambda system, reading: system.redis.persist(system.keys.state(reading.rid)), "never expires"),
        (lambda system, reading: reading.apply_text(len(reading.text), "", "more"), "text at"),
        (lambda system, reading: reading.apply_done(reading.done[0]), "a second end"),
        (lambda system, reading: reading.apply_rewind(3, ""), "rewinds though nothing was lost"),
        (lambda system, reading: setattr(reading, "text", reading.text[1:]), "shown"),
        (lambda system, reading: setattr(reading, "done", []), "reads no end"),
    ],
)
def test_damage_is_seen(system: FaultSystem, tab: Tab, damage: Damage, what: str) -> None:
    assert violations(system, [tab], lossy=False) == []
    damage(system, tab.readings[0])
    found = violations(system, [tab], lossy=False)
    assert any(what in problem for problem in found), found


def test_only_what_redis_really_lost_is_excused(system: FaultSystem, tab: Tab) -> None:
    reading = tab.readings[0]
    lose_state(system, reading)
    system.losses[:] = [Loss(time.monotonic(), (b"something else",))]
    assert violations(system, [tab], lossy=True) != []
    system.losses[:] = [Loss(time.monotonic(), (f"{{{reading.rid}}}:state".encode(),))]
    assert violations(system, [tab], lossy=True) == []
    assert violations(system, [tab], lossy=False) != []
    system.losses.clear()
