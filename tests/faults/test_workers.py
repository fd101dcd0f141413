"""What workers suffer: death at every moment of a request's life, standing still, draining, engines that break, poison.

Readers' audits repair much of what a worker forgets, so wherever the rule is the worker's, the submitter vanishes.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chat.dead_letters import DeadLetters
from services.chat.journal import _BEGIN, _FINISH  # their names on the wire
from services.chat.queue import _ACK, _HOLD, _TAKE
from services.chat.requests import Requests
from tests.end_to_end.system import wait_until
from tests.faults.conftest import Outcome
from tests.faults.scenario import Scenario, shared_system
from tests.faults.system import FaultSystem, Part
from tests.faults.tabs import Question
from tests.faults.worker import MODEL

LONG = 120  # tokens: three seconds at 40 steps a second


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("workers")
    settings = {"num_workers": 3, "num_webs": 1, "binary": redis_binary}
    settings["stall_s"] = 3  # longer than a takeover: a worker that stood still for one must not replace its engine
    with shared_system(folder, worker_options=("--rate", "40", "--slots", "4"), **settings) as made:
        yield made


def leave(scenario: Scenario, *rids: str, text: str = "hello", tokens: int = LONG) -> None:
    """Ask and vanish: nobody audits these requests."""
    for rid in rids:
        scenario.vanish(Question(rid, text, tokens))


def assert_finished(scenario: Scenario, *rids: str) -> None:
    ends = {rid: scenario.end_of(rid) for rid in rids}
    assert {(head.status, head.code) for head in ends.values()} == {("finished", "length")}


def stop_gracefully(scenario: Scenario, part: Part) -> None:
    scenario.system.send_signal(part.name, signal.SIGTERM)
    wait_until(lambda: not part.alive, f"the drain of {part.name}")


# -- death -----------------------------------------------------------------------------------------------------------

STAGES = [
    ("take", _TAKE.sha.encode(), 1),
    *[("request", b"", n) for n in range(1, 6)],
    ("finish", _FINISH.sha.encode(), 1),
    ("ack", _ACK.sha.encode(), 1),
]


@pytest.mark.parametrize(("what", "pattern", "n"), STAGES, ids=[f"{what}-{n}" for what, _, n in STAGES])
def test_a_worker_may_die_after_any_command_of_a_requests_life(
    system: FaultSystem, scenario: Scenario, outcome: Outcome, what: str, pattern: bytes, n: int
) -> None:
    """begin, first token, further ones, finish, acknowledge: the others answer it, or find that it is answered."""
    rid = f"crash-{what}-{n}"
    victim, *others = system.of_kind("worker")
    for part in others:  # so that the victim takes it
        system.send_signal(part.name, signal.SIGSTOP)
    mention = pattern or b"{" + rid.encode() + b"}"
    point = victim.proxy.after_commands(n, lambda: os.kill(victim.pid, signal.SIGKILL), mentioning=mention)
    leave(scenario, rid, tokens=8)
    assert point.reached.wait(10), "the request's life is shorter than the sweep"
    scenario.resume_workers()
    assert_finished(scenario, rid)
    scenario.judge()
    outcome("worker SIGKILL, command by command", requests=1)


def test_a_killed_workers_neighbours_in_the_batch_are_all_continued(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    rids = [f"batch-{number}" for number in range(8)]
    leave(scenario, *rids)
    owner = scenario.begun_by("batch-0", 1, tokens=5)
    system.send_signal(owner.name, signal.SIGKILL)
    assert_finished(scenario, *rids)
    scenario.judge()
    outcome("worker SIGKILL in a full batch", requests=8)


# -- standing still --------------------------------------------------------------------------------------------------


def test_a_zombie_that_wakes_up_and_writes_is_refused(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    leave(scenario, "zombie", tokens=200)
    zombie = scenario.begun_by("zombie", 1, tokens=5)
    system.send_signal(zombie.name, signal.SIGSTOP)
    taken_at = scenario.head("zombie").n
    assert scenario.begun_by("zombie", 2, tokens=taken_at + 5) is not zombie
    system.send_signal(zombie.name, signal.SIGCONT)
    assert_finished(scenario, "zombie")
    assert scenario.head("zombie").begins == 2
    scenario.judge()
    outcome("worker SIGSTOP, takeover, SIGCONT", requests=1)


def test_what_the_former_owner_writes_until_the_begin_is_continued(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """The journal is read in the step that ends the former owner's rights: read before, it lacks the last tokens."""
    leave(scenario, "between", tokens=200)
    former = scenario.begun_by("between", 1, tokens=5)
    system.send_signal(former.name, signal.SIGSTOP)
    successor, other = [part for part in system.of_kind("worker") if part is not former]
    system.send_signal(other.name, signal.SIGSTOP)
    begin = successor.proxy.hold_when(_BEGIN.sha.encode())
    assert begin.reached.wait(10) and b"{between}:state" in begin.command
    before = scenario.head("between").n
    lease = former.proxy.hold_when(_HOLD.sha.encode())
    system.send_signal(former.name, signal.SIGCONT)
    assert lease.reached.wait(5)
    former.proxy.reset()  # it did not hear that its lease is lost: it writes first, then asks again
    scenario.wait_for_tokens("between", before + 1)
    successor.proxy.release(begin)
    assert_finished(scenario, "between")
    scenario.resume_workers()
    scenario.judge()
    outcome("former owner writes until the begin", requests=1)


# -- draining --------------------------------------------------------------------------------------------------------


def test_a_request_drained_again_and_again_is_not_given_up(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Deliveries are no deaths: it was called poison after the third rolling restart."""
    leave(scenario, "drained", tokens=400)
    for begins in range(1, 6):
        owner = scenario.begun_by("drained", begins, tokens=5 * begins)
        stop_gracefully(scenario, owner)
        system.start_part(owner.name)
        system.ready(owner.name)
    assert_finished(scenario, "drained")
    assert scenario.head("drained").begins == 6
    scenario.judge()
    outcome("worker SIGTERM, five times in a row", times=5, requests=1)


def test_a_rolling_restart_under_load_loses_nothing(system: FaultSystem, scenario: Scenario, outcome: Outcome) -> None:
    """All slots are taken and others wait."""
    rids = [f"rolling-{number}" for number in range(24)]
    leave(scenario, *rids, tokens=100)
    for part in system.of_kind("worker"):
        stop_gracefully(scenario, part)
        system.start_part(part.name)
        system.ready(part.name)
    assert_finished(scenario, *rids)
    scenario.judge()
    outcome("rolling restart under load", times=3, requests=24)


def test_what_is_handed_back_goes_before_those_who_wait(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Each free slot went to the queue's next one at once: what a drained worker gave back waited for all of them."""
    first = [f"first-{number}" for number in range(12)]
    leave(scenario, *first)
    for rid in first:
        scenario.wait_for_tokens(rid, 1)
    backlog = [f"waits-{number}" for number in range(24)]
    leave(scenario, *backlog)
    stop_gracefully(scenario, scenario.begun_by("first-0", 1))
    handed_back = [rid for rid in first if not scenario.head(rid).ended]
    wait_until(lambda: all(scenario.head(rid).nonce for rid in handed_back), "owners for all that was handed back")
    assert len(system.queue.waiting()) >= 12
    assert_finished(scenario, *first, *backlog)
    scenario.judge()
    outcome("drain with a backlog", requests=36)


def test_a_worker_that_cannot_drain_in_its_grace_is_killed_and_nothing_is_lost(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """`docker stop`: SIGTERM, a grace, SIGKILL. Its connection to Redis is half open meanwhile."""
    leave(scenario, "grace", tokens=150)
    owner = scenario.begun_by("grace", 1, tokens=5)
    owner.proxy.blackhole()
    system.send_signal(owner.name, signal.SIGTERM)
    time.sleep(1)  # the grace
    system.send_signal(owner.name, signal.SIGKILL)
    assert_finished(scenario, "grace")
    assert scenario.head("grace").begins == 2
    scenario.judge()
    outcome("SIGTERM, grace, SIGKILL on a dead line", requests=1)


# -- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ("hang@5", "finished", "length"),
        ("die@5", "finished", "length"),
        ("raise@5", "failed", "engine_error"),
        ("oom@5", "failed", "out_of_memory"),
    ],
)
def test_an_engine_that_breaks_harms_its_request_at_most(
    system: FaultSystem, scenario: Scenario, outcome: Outcome, order: str, status: str, code: str
) -> None:
    kind = order.partition("@")[0]
    neighbours = [f"{kind}-neighbour-{number}" for number in range(6)]
    leave(scenario, *neighbours, tokens=60)
    leave(scenario, f"{kind}-breaker", text=order, tokens=30)
    end = scenario.end_of(f"{kind}-breaker")
    assert (end.status, end.code) == (status, code)
    assert_finished(scenario, *neighbours)
    scenario.judge()
    outcome(f"engine step: {kind}", requests=7)


# -- poison ----------------------------------------------------------------------------------------------------------


def test_a_request_that_kills_every_worker_is_given_up_with_its_reason(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    innocents = [f"innocent-{number}" for number in range(6)]
    leave(scenario, *innocents, tokens=60)
    leave(scenario, "poisoned", text="poison", tokens=20)

    def given_up() -> bool:
        for part in system.of_kind("worker"):
            system.start_part(part.name)
        return scenario.head("poisoned").ended

    wait_until(given_up, "the poison's end", 25)
    assert scenario.head("poisoned").code == "poison"
    assert_finished(scenario, *innocents)
    letters = DeadLetters(system.redis, Requests(system.redis, system.keys))
    (letter,) = letters.matching("poisoned")
    assert letter.reason == "poison" and letter.model == MODEL
    letters.drop(letter)
    scenario.judge()
    outcome("poison request", requests=7)


# -- versions --------------------------------------------------------------------------------------------------------


def test_a_worker_of_another_version_leaves_what_it_cannot_read(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """In a rolling upgrade it took newer requests and ended them as unreadable."""
    process = system.start("tests.faults.older_worker", "--rate", "40", "--slots", "4")
    system.wait_for_worker(process)
    rids = [f"upgrade-{number}" for number in range(16)]
    leave(scenario, *rids, tokens=40)
    owner = scenario.begun_by("upgrade-0", 1)
    system.send_signal(owner.name, signal.SIGKILL)
    assert_finished(scenario, *rids)
    assert process.poll() is None
    process.terminate()
    process.wait(10)
    scenario.judge()
    outcome("a worker of an older version beside", requests=16)
