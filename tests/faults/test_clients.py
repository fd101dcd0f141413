"""What clients do and suffer: they vanish, read slowly, change web processes, ask twice, cancel at any time."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.command.plain import place_text
from services.protocol import ChatRequest, Message, SamplingOptions
from services.reader import Status
from services.requests import Requests
from tests.end_to_end.system import wait_until
from tests.faults.conftest import Outcome, failed
from tests.faults.invariants import violations
from tests.faults.system import FaultSystem, fault_system
from tests.faults.tabs import Behaviour, Question, Tab, Terminal
from tests.faults.worker import MODEL

SLOTS = 4


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("clients")
    options = ("--rate", "40", "--slots", str(SLOTS))
    with fault_system(folder, num_workers=1, num_webs=2, worker_options=options, binary=redis_binary) as made:
        made.note_levels()
        yield made


@pytest.fixture
def tabs(system: FaultSystem, request: pytest.FixtureRequest) -> Iterator[list[Tab]]:
    """Four tabs of four users; after the test nothing of theirs may be wrong, and everything is at rest again."""
    made = [Tab(f"tab-{number}", [part.url for part in system.of_kind("web")]) for number in range(4)]
    yield made
    for part in system.of_kind("web"):
        part.proxy.heal()
        system.start_part(part.name)
        system.ready(part.name)
    for tab in made:
        tab.close()
    if failed(request):
        return
    wait_until(lambda: not system.queue.length(), "the end of all requests", 30)
    assert violations(system, made, lossy=False) == []
    system.idle()


def soon() -> float:
    return time.monotonic() + 25


def ask_all(tabs: list[Tab], questions: list[Question], behaviour: Behaviour) -> None:
    """Each tab one question, all at once."""
    threads = [
        threading.Thread(target=tab.run, args=(question, behaviour, soon()))
        for tab, question in zip(tabs, questions, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def of_each(name: str, tokens: int = 80) -> list[Question]:
    return [Question(f"{name}-{number}", "hello", tokens) for number in range(4)]


@pytest.mark.parametrize(
    ("what", "behaviour"),
    [
        ("vanishes", Behaviour(vanish=True)),
        ("reads slowly", Behaviour(slow_s=0.3)),
        ("opens a second tab", Behaviour(second_tab=True)),
        ("submits twice", Behaviour(twice=True)),
        ("cancels at once", Behaviour(cancel_after=0)),
        ("cancels in mid-answer", Behaviour(cancel_after=60)),
    ],
)
def test_a_client_may(system: FaultSystem, tabs: list[Tab], outcome: Outcome, what: str, behaviour: Behaviour) -> None:
    questions = of_each(what.replace(" ", "-"))
    ask_all(tabs, questions, behaviour)
    wait_until(lambda: not system.queue.length(), "the end of all requests", 20)
    heads = [system.journal.head(question.rid) for question in questions]
    assert {head.status for head in heads if head} == {"cancelled" if "cancel" in what else "finished"}
    assert {head.begins for head in heads if head} <= {0, 1}, "no question ran twice"
    outcome(f"client {what}", times=4, requests=4)


def test_a_web_process_dies_with_its_clients_attached(system: FaultSystem, tabs: list[Tab], outcome: Outcome) -> None:
    questions = of_each("web-killed", 100)

    def kill_in_the_middle() -> None:
        wait_until(lambda: (head := system.journal.head(questions[0].rid)) and head.n > 10, "some tokens")
        system.send_signal("web-0", signal.SIGKILL)

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    ask_all(tabs, questions, Behaviour(second_tab=True))
    killer.join()
    assert all(reading.done for tab in tabs for reading in tab.readings)
    outcome("web process SIGKILL with clients attached", requests=4)


def test_a_cancel_that_comes_late_or_twice_changes_nothing(
    system: FaultSystem, tabs: list[Tab], outcome: Outcome
) -> None:
    """The acknowledgement was lost, or the answer ended meanwhile: still exactly one end."""
    reading = tabs[0].run(Question("late", "hello", 10), Behaviour(), soon())
    assert reading.done[0]["status"] == "finished"
    for _ in range(2):
        answer = tabs[0]._call("cancel", {"id": "late"})
        assert answer == {"ok": True, "status": "finished"}
    outcome("cancel after the end", times=2, requests=1)


def test_nobody_reads_or_stops_what_is_not_theirs(system: FaultSystem, tabs: list[Tab], outcome: Outcome) -> None:
    tabs[0].run(Question("private", "hello", 30), Behaviour(), soon())
    tabs[1]._connected()
    for event in ("watch", "cancel"):
        answer = tabs[1]._call(event, {"id": "private", "offset": 0, "nonce": ""})
        assert answer is not None and answer["error"]["code"] == "forbidden"
    outcome("a stranger watches, cancels", times=2, requests=1)


# -- fairness --------------------------------------------------------------------------------------------------------


def submit(system: FaultSystem, user: str, rid: str, *, tokens: int = 20, **options: str) -> None:
    """Straight to the queue, as a client that vanishes."""
    sampling = SamplingOptions(max_new_tokens=tokens)
    request = ChatRequest(rid, user, MODEL, (Message("user", "hello"),), sampling, **options)  # type: ignore[arg-type]
    Requests(system.redis, system.keys, max_user_requests=200).submit(request)


def begun_order(system: FaultSystem, rids: list[str]) -> list[str]:
    """The ids in the order in which workers began them, once all have ended."""
    wait_until(lambda: not system.queue.length(), "the end of all requests", 40)
    heads = {rid: system.journal.head(rid) for rid in rids}
    return sorted(rids, key=lambda rid: heads[rid].begun_ms)  # type: ignore[union-attr]


def test_a_hundred_questions_of_one_user_let_anothers_first_one_pass(
    system: FaultSystem, tabs: list[Tab], outcome: Outcome
) -> None:
    """At most one waiting request of each other user is taken before a newcomer's first."""
    rids = [f"ann-{number:03d}" for number in range(100)]
    for rid in rids:
        submit(system, "ann", rid, tokens=5)
    wait_until(lambda: len(system.queue.waiting()) < 90, "the first of ann's")
    left = len(system.queue.waiting())
    submit(system, "bob", "bob-000", tokens=5)
    order = begun_order(system, [*rids, "bob-000"])
    assert order.index("bob-000") <= len(rids) - left + SLOTS + 1
    assert [rid for rid in order if rid.startswith("ann")] == rids, "a user's own requests keep their order"
    outcome("a user with 100 queued requests", requests=101)


def test_interactive_requests_pass_batch_ones(system: FaultSystem, tabs: list[Tab], outcome: Outcome) -> None:
    blockers = [f"blocker-{number}" for number in range(SLOTS)]
    for number, rid in enumerate(blockers):
        submit(system, f"blocker-{number}", rid, tokens=60)
    wait_until(lambda: not system.queue.waiting(), "full slots")
    batch = [f"batch-{number}" for number in range(6)]
    people = [f"person-{number}" for number in range(6)]
    for rid in batch:
        submit(system, "robot", rid, priority="batch")
    for rid in people:
        submit(system, rid, rid)
    order = begun_order(system, [*batch, *people])
    assert order[:6] == people and order[6:] == batch
    outcome("interactive against batch", requests=16)


def test_waiting_readers_are_told_their_place_and_when_it_is_their_turn(
    system: FaultSystem, tabs: list[Tab], outcome: Outcome
) -> None:
    for number in range(20):
        submit(system, f"crowd-{number}", f"crowd-{number}", tokens=40)
    person = Terminal("person", system.client_proxy().url, system.keys)
    statuses: list[Status] = []
    request = Question("patient", "hello", 20).request(person.user)
    person._client.submit(request)
    for event in person._client.follow("patient", person.user):
        if isinstance(event, Status) and event.state == "queued":
            statuses.append(event)
    person.close()
    positions = [status.position for status in statuses if status.position is not None]
    assert len(positions) >= 2 and positions == sorted(positions, reverse=True)
    told = [status for status in statuses if status.eta_s]
    assert told and place_text(told[0]).endswith(f"ahead, about {told[0].eta_s} s")
    assert all(0 <= (status.eta_s or 0) < 60 for status in told)
    outcome("waiting: place and time", requests=21)
