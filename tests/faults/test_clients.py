"""What clients do and suffer: they vanish, read slowly, change web processes, ask twice, cancel at any time."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chat.client import ChatClient
from services.chat.queue import Limits
from services.chat.reader import Status
from services.chat.requests import Requests
from services.command.plain import waiting_text
from services.wire.messages import ChatRequest, Message, SamplingOptions
from tests.end_to_end.system import wait_until
from tests.faults.conftest import Outcome
from tests.faults.scenario import Scenario, shared_system
from tests.faults.system import FaultSystem
from tests.faults.tabs import Behaviour, Question
from tests.faults.worker import MODEL

SLOTS = 4


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("clients")
    options = ("--rate", "40", "--slots", str(SLOTS))
    with shared_system(folder, num_workers=1, num_webs=2, worker_options=options, binary=redis_binary) as made:
        yield made


def at_rest(system: FaultSystem) -> None:
    wait_until(lambda: not system.queue.length(), "the end of all requests", 40)


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
def test_a_client_may(
    system: FaultSystem, scenario: Scenario, outcome: Outcome, what: str, behaviour: Behaviour
) -> None:
    rids = [f"{what.replace(' ', '-')}-{number}" for number in range(4)]
    asked = [scenario.ask(scenario.tab(), Question(rid, "hello", 80), behaviour) for rid in rids]
    for future in asked:
        future.result()
    at_rest(system)
    assert {scenario.head(rid).status for rid in rids} == {"cancelled" if "cancel" in what else "finished"}
    assert {scenario.head(rid).begins for rid in rids} <= {0, 1}, "no question ran twice"
    scenario.judge()
    outcome(f"client {what}", times=4, requests=4)


def test_a_message_that_is_too_large_is_answered_beside_a_running_answer(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """The socket was closed; its client came back with the same message, and its other answers stood still."""
    tab = scenario.tab()
    asked = scenario.ask(tab, Question("beside", "hello", 80))
    scenario.wait_for_tokens("beside", 5)
    answer = tab.call("submit", {"id": "large", "model": MODEL, "messages": "x" * 1_300_000})
    assert answer is not None and answer["error"]["code"] == "content_too_large"
    assert asked.result().done[0]["status"] == "finished"
    scenario.judge()
    outcome("client sends more than the limit", requests=1, result="refused; its socket went on")


def test_a_web_process_dies_with_its_clients_attached(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    rids = [f"web-killed-{number}" for number in range(4)]
    both_tabs = Behaviour(second_tab=True)
    asked = [scenario.ask(scenario.tab(), Question(rid, "hello", 100), both_tabs) for rid in rids]
    scenario.wait_for_tokens(rids[0], 10)
    system.send_signal("web-0", signal.SIGKILL)
    assert all(future.result().done for future in asked)
    system.start_part("web-0")
    system.ready("web-0")
    scenario.judge()
    outcome("web process SIGKILL with clients attached", requests=4)


def test_a_cancel_that_comes_late_or_twice_changes_nothing(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """The acknowledgement was lost, or the answer ended meanwhile: still exactly one end."""
    tab = scenario.tab()
    assert scenario.ask(tab, Question("late", "hello", 10)).result().done[0]["status"] == "finished"
    for _ in range(2):
        assert tab.call("cancel", {"id": "late"}) == {"ok": True, "status": "finished"}
    scenario.judge()
    outcome("cancel after the end", times=2, requests=1)


def test_nobody_reads_or_stops_what_is_not_theirs(system: FaultSystem, scenario: Scenario, outcome: Outcome) -> None:
    stranger = scenario.tab()
    asked = scenario.ask(scenario.tab(), Question("private", "hello", 80))
    scenario.wait_for_tokens("private", 5)
    for event in ("watch", "cancel"):
        answer = stranger.call(event, {"id": "private", "offset": 0, "nonce": ""})
        assert answer is not None and answer["error"]["code"] == "forbidden"
    assert asked.result().done[0]["status"] == "finished"
    scenario.judge()
    outcome("a stranger watches, cancels", times=2, requests=1)


# -- fairness --------------------------------------------------------------------------------------------------------


def submit(system: FaultSystem, user: str, rid: str, *, tokens: int = 20, **options: str) -> None:
    """Straight to the queue, as a client that vanishes."""
    sampling = SamplingOptions(max_new_tokens=tokens)
    request = ChatRequest(rid, user, MODEL, (Message("user", "hello"),), sampling, **options)  # type: ignore[arg-type]
    Requests(system.redis, system.keys, limits=Limits(user_requests=200)).submit(request)


def begun_order(scenario: Scenario, rids: list[str]) -> list[str]:
    """The ids in the order in which workers began them, once all have ended."""
    at_rest(scenario.system)
    return sorted(rids, key=lambda rid: scenario.head(rid).begun_ms)


def test_a_hundred_questions_of_one_user_let_anothers_first_one_pass(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """At most one waiting request of each other user is taken before a newcomer's first."""
    rids = [f"ann-{number:03d}" for number in range(100)]
    for rid in rids:
        submit(system, "ann", rid, tokens=5)
    wait_until(lambda: len(system.queue.waiting()) < 90, "the first of ann's")
    left = len(system.queue.waiting())
    submit(system, "bob", "bob-000", tokens=5)
    order = begun_order(scenario, [*rids, "bob-000"])
    assert order.index("bob-000") <= len(rids) - left + SLOTS + 1
    assert [rid for rid in order if rid.startswith("ann")] == rids, "a user's own requests keep their order"
    outcome("a user with 100 queued requests", requests=101)


def test_interactive_requests_pass_batch_ones(system: FaultSystem, scenario: Scenario, outcome: Outcome) -> None:
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
    order = begun_order(scenario, [*batch, *people])
    assert order[:6] == people and order[6:] == batch
    outcome("interactive against batch", requests=16)


def test_waiting_readers_are_told_their_place_and_when_it_is_their_turn(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    for number in range(20):
        submit(system, f"crowd-{number}", f"crowd-{number}", tokens=40)
    client = ChatClient(system.redis, system.keys)
    client.submit(Question("patient", "hello", 20).request("person"))
    events = list(client.follow("patient", "person"))
    statuses = [event for event in events if isinstance(event, Status) and event.state == "queued"]
    positions = [status.position for status in statuses if status.position is not None]
    assert len(positions) >= 2 and positions == sorted(positions, reverse=True)
    told = [status for status in statuses if status.eta_s is not None]
    assert told and waiting_text(told[0]).startswith(f"waiting, {told[0].position} ahead")
    assert all(0 <= (status.eta_s or 0) < 60 for status in told)
    outcome("waiting: place and time", requests=21)
