"""What workers suffer: death at every moment of a request's life, standing still, draining, engines that break, poison.

Readers' audits repair much of what a worker forgets, so wherever the rule is the worker's, the submitter vanishes.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.dead_letters import DeadLetters
from services.journal import _BEGIN, _FINISH  # their names on the wire
from services.queue import _ACK, _HOLD, _TAKE
from services.requests import Requests
from tests.end_to_end.system import wait_until
from tests.faults.conftest import Outcome, failed
from tests.faults.invariants import violations
from tests.faults.system import FaultSystem, Part, fault_system
from tests.faults.tabs import Behaviour, Question, Terminal
from tests.faults.worker import MODEL

LONG = 120  # tokens: three seconds at 40 steps a second


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("workers")
    settings = {"num_workers": 3, "num_webs": 1, "binary": redis_binary}
    settings["stall_s"] = 3  # longer than a takeover: a worker that stood still for one must not replace its engine
    with fault_system(folder, worker_options=("--rate", "40", "--slots", "4"), **settings) as made:
        yield made


@pytest.fixture
def people(system: FaultSystem, request: pytest.FixtureRequest) -> Iterator[list[Terminal]]:
    """Four clients; after the test nothing of theirs may be wrong, and every worker runs again."""
    made = [Terminal(f"person-{number}", system.client_proxy().url, system.keys) for number in range(4)]
    yield made
    for part in system.of_kind("worker"):
        part.proxy.heal()
        system.send_signal(part.name, signal.SIGCONT)
        system.start_part(part.name)
        system.ready(part.name)
    if failed(request):
        return
    system.idle(30)
    assert violations(system, made, lossy=False) == []
    for person in made:
        person.close()


def soon() -> float:
    return time.monotonic() + 25


def leave(person: Terminal, rid: str, text: str = "hello", tokens: int = LONG) -> Question:
    """Ask and vanish: nobody audits this request."""
    question = Question(rid, text, tokens)
    person.run(question, Behaviour(vanish=True), soon())
    return question


def tokens_of(system: FaultSystem, rid: str) -> int:
    head = system.journal.head(rid)
    return head.n if head else 0


def running(system: FaultSystem, rid: str, tokens: int = 5) -> Part:
    """The owner of a request in mid-answer."""
    wait_until(lambda: tokens_of(system, rid) >= tokens, f"{tokens} tokens of {rid}")
    owner = system.owner(rid)
    assert owner is not None
    return owner


def ended(system: FaultSystem, rid: str, timeout_s: float = 25.0) -> tuple[str, str, int]:
    """Status, code and begins, once it has ended."""

    def over() -> bool:
        head = system.journal.head(rid)
        return head is not None and head.ended

    wait_until(over, f"the end of {rid}", timeout_s)
    head = system.journal.head(rid)
    assert head is not None
    return head.status, head.code, head.begins


FINISHED = ("finished", "length")


def restart(system: FaultSystem, part: Part) -> None:
    system.start_part(part.name)
    system.ready(part.name)


# -- death -----------------------------------------------------------------------------------------------------------

STAGES = [
    ("take", _TAKE.sha.encode(), 1),
    *[("request", b"", n) for n in range(1, 6)],
    ("finish", _FINISH.sha.encode(), 1),
    ("ack", _ACK.sha.encode(), 1),
]


@pytest.mark.parametrize(("what", "pattern", "n"), STAGES, ids=[f"{what}-{n}" for what, _, n in STAGES])
def test_a_worker_may_die_after_any_command_of_a_requests_life(
    system: FaultSystem, people: list[Terminal], outcome: Outcome, what: str, pattern: bytes, n: int
) -> None:
    """begin, first token, further ones, finish, acknowledge: the others answer it, or find that it is answered."""
    rid = f"crash-{what}-{n}"
    victim, *others = system.of_kind("worker")
    for part in others:  # so that the victim takes it
        system.send_signal(part.name, signal.SIGSTOP)
    mention = pattern or b"{" + rid.encode() + b"}"
    point = victim.proxy.after_commands(n, lambda: os.kill(victim.pid, signal.SIGKILL), mentioning=mention)
    leave(people[0], rid, tokens=8)
    for part in others:
        wait_until(lambda: point.reached.is_set() or ended_already(system, rid), "the crash", 10)
        system.send_signal(part.name, signal.SIGCONT)
    assert ended(system, rid)[:2] == FINISHED
    assert point.reached.is_set(), "the request's life is shorter than the sweep"
    wait_until(lambda: not victim.alive, "the death")  # else it passes for alive and is not started again
    outcome("worker SIGKILL, command by command", requests=1)


def ended_already(system: FaultSystem, rid: str) -> bool:
    head = system.journal.head(rid)
    return head is not None and head.ended


def test_a_killed_workers_neighbours_in_the_batch_are_all_continued(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    for number in range(8):
        leave(people[number % 4], f"batch-{number}")
    owner = running(system, "batch-0")
    system.send_signal(owner.name, signal.SIGKILL)
    assert {ended(system, f"batch-{number}")[:2] for number in range(8)} == {FINISHED}
    outcome("worker SIGKILL in a full batch", requests=8)


# -- standing still --------------------------------------------------------------------------------------------------


def test_a_zombie_that_wakes_up_and_writes_is_refused(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    question = leave(people[0], "zombie", tokens=200)
    zombie = running(system, "zombie")
    system.send_signal(zombie.name, signal.SIGSTOP)
    wait_until(lambda: system.owner("zombie") not in (None, zombie), "the takeover")
    taken_at = tokens_of(system, "zombie")
    wait_until(lambda: tokens_of(system, "zombie") > taken_at + 5, "tokens of the new owner")
    system.send_signal(zombie.name, signal.SIGCONT)
    people[0].run(question, Behaviour(), soon())
    assert ended(system, "zombie") == (*FINISHED, 2)
    outcome("worker SIGSTOP, takeover, SIGCONT", requests=1)


def test_what_the_former_owner_writes_until_the_begin_is_continued(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    """The journal is read in the step that ends the former owner's rights: read before, it lacks the last tokens."""
    leave(people[0], "between", tokens=200)
    former = running(system, "between")
    system.send_signal(former.name, signal.SIGSTOP)
    mention = b"{between}:state"  # of the command that is held
    successor, other = [part for part in system.of_kind("worker") if part is not former]
    system.send_signal(other.name, signal.SIGSTOP)
    begin = successor.proxy.hold_when(_BEGIN.sha.encode())
    assert begin.reached.wait(10) and mention in begin.command
    before = tokens_of(system, "between")
    lease = former.proxy.hold_when(_HOLD.sha.encode())
    system.send_signal(former.name, signal.SIGCONT)
    assert lease.reached.wait(5)
    former.proxy.reset()  # it did not hear that its lease is lost: it writes first, then asks again
    wait_until(lambda: tokens_of(system, "between") > before, "a token of the former owner", 5)
    successor.proxy.release(begin)
    assert ended(system, "between")[:2] == FINISHED
    outcome("former owner writes until the begin", requests=1)


# -- draining --------------------------------------------------------------------------------------------------------


def test_a_request_drained_again_and_again_is_not_given_up(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    """Deliveries are no deaths: it was called poison after the third rolling restart."""
    leave(people[0], "drained", tokens=400)
    for _ in range(5):
        owner = running(system, "drained", tokens_of(system, "drained") + 1)
        system.send_signal(owner.name, signal.SIGTERM)
        wait_until(lambda owner=owner: not owner.alive, "the drain")
        restart(system, owner)
    status, code, begins = ended(system, "drained")
    assert (status, code) == FINISHED and begins == 6
    outcome("worker SIGTERM, five times in a row", times=5, requests=1)


def test_a_rolling_restart_under_load_loses_nothing(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    """All slots are taken and others wait: what is handed back goes before them."""
    for number in range(24):
        leave(people[number % 4], f"rolling-{number}", tokens=100)
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGTERM)
        wait_until(lambda part=part: not part.alive, f"the drain of {part.name}")
        restart(system, part)
    assert {ended(system, f"rolling-{number}", 40)[:2] for number in range(24)} == {FINISHED}
    outcome("rolling restart under load", times=3, requests=24)


def test_what_is_handed_back_goes_before_those_who_wait(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    """Each free slot went to the queue's next one at once: what a drained worker gave back waited for all of them."""
    running_first = [f"first-{number}" for number in range(12)]
    for rid in running_first:
        leave(people[0], rid)
    wait_until(lambda: all(tokens_of(system, rid) for rid in running_first), "tokens in all slots")
    backlog = [f"waits-{number}" for number in range(24)]
    for number, rid in enumerate(backlog):
        leave(people[1 + number % 3], rid)
    drained = running(system, "first-0")
    system.send_signal(drained.name, signal.SIGTERM)
    wait_until(lambda: not drained.alive, "the drain")
    heads = {rid: system.journal.head(rid) for rid in running_first}
    handed_back = [rid for rid, head in heads.items() if head and not head.ended]

    def all_owned() -> bool:
        return all((head := system.journal.head(rid)) and head.nonce for rid in handed_back)

    wait_until(all_owned, "owners for all that was handed back")
    assert len(system.queue.waiting()) >= 12
    outcome("drain with a backlog", requests=36)


def test_a_worker_that_cannot_drain_in_its_grace_is_killed_and_nothing_is_lost(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    """`docker stop`: SIGTERM, a grace, SIGKILL. Its connection to Redis is half open meanwhile."""
    leave(people[0], "grace", tokens=150)
    owner = running(system, "grace")
    owner.proxy.blackhole()
    system.send_signal(owner.name, signal.SIGTERM)
    time.sleep(1)  # the grace
    system.send_signal(owner.name, signal.SIGKILL)
    assert ended(system, "grace") == (*FINISHED, 2)
    outcome("SIGTERM, grace, SIGKILL on a dead line", requests=1)


# -- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "end"),
    [
        ("hang@5", FINISHED),
        ("die@5", FINISHED),
        ("raise@5", ("failed", "engine_error")),
        ("oom@5", ("failed", "out_of_memory")),
    ],
)
def test_an_engine_that_breaks_harms_its_request_at_most(
    system: FaultSystem, people: list[Terminal], outcome: Outcome, order: str, end: tuple[str, str]
) -> None:
    kind = order.partition("@")[0]
    for number in range(6):
        leave(people[number % 4], f"{kind}-neighbour-{number}", tokens=60)
    leave(people[0], f"{kind}-breaker", order, tokens=30)
    assert ended(system, f"{kind}-breaker")[:2] == end
    assert {ended(system, f"{kind}-neighbour-{number}")[:2] for number in range(6)} == {FINISHED}
    outcome(f"engine step: {kind}", requests=7)


# -- poison ----------------------------------------------------------------------------------------------------------


def test_a_request_that_kills_every_worker_is_given_up_and_can_be_driven_again(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    for number in range(6):
        leave(people[1], f"innocent-{number}", tokens=60)
    poison = Question("poisoned", "poison", 20)
    people[0].run(poison, Behaviour(vanish=True), soon())

    def tend() -> bool:
        for part in system.of_kind("worker"):
            system.start_part(part.name)
        return ended_already(system, "poisoned")

    wait_until(tend, "the poison's end", 25)
    assert ended(system, "poisoned")[:2] == ("failed", "poison")
    assert {ended(system, f"innocent-{number}")[:2] for number in range(6)} == {FINISHED}
    letters = DeadLetters(system.redis, Requests(system.redis, system.keys))
    (letter,) = letters.matching("poisoned")
    assert letter.reason == "poison" and letter.model == MODEL
    letters.drop(letter)
    outcome("poison request", requests=7)


# -- versions --------------------------------------------------------------------------------------------------------


def test_a_worker_of_another_version_leaves_what_it_cannot_read(
    system: FaultSystem, people: list[Terminal], outcome: Outcome
) -> None:
    """In a rolling upgrade it took newer requests and ended them as unreadable."""
    process = system.start("tests.faults.older_worker", "--rate", "40", "--slots", "4")
    system.wait_for_worker(process)
    for number in range(16):
        leave(people[number % 4], f"upgrade-{number}", tokens=40)
    owner = running(system, "upgrade-0", 1)
    system.send_signal(owner.name, signal.SIGKILL)
    assert {ended(system, f"upgrade-{number}")[:2] for number in range(16)} == {FINISHED}
    assert process.poll() is None
    process.terminate()
    process.wait(10)
    outcome("a worker of an older version beside", requests=16)
