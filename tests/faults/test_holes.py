"""The rare corners of the wire, with real processes: what is refused, found again, given up, or counted.

Proved with the real scripts elsewhere, and not written again here: a beat under a lost nonce and the total of twenty
begins (`tests/services/chat/test_journal.py`); that two suspects never share a worker, and a clock of Redis that steps
back (`tests/workers/test_loop.py`); positions when entries are deleted (`tests/services/chat/test_queue.py`). The
reconnect grace and a full memory are in `test_redis.py`.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chat.client import ChatClient
from services.chat.queue import Limits, RequestQueue
from services.chat.reader import Done, Status
from services.chat.requests import Requests
from services.connection.connect import connect
from services.errors import UserLimit
from services.places import ROOT
from services.wire.messages import ChatRequest, Message, SamplingOptions
from tests.end_to_end.system import Browser, session_cookie, wait_until
from tests.faults.answers import problems
from tests.faults.conftest import Outcome
from tests.faults.scenario import DEADLINE_S, Scenario, shared_system
from tests.faults.system import FaultSystem, fault_system
from tests.faults.tabs import Question
from tests.faults.worker import MODEL

RATE = 40  # tokens per second and request


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("holes")
    with shared_system(folder, worker_options=("--rate", str(RATE)), binary=redis_binary) as made:
        yield made


@pytest.fixture
def no_worker(system: FaultSystem) -> Iterator[None]:
    """Nothing is taken during the test; `Scenario.heal` lets the workers go on."""
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGSTOP)
    yield
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGCONT)


def question_of(rid: str, user: str, model: str = MODEL, tokens: int = 20) -> ChatRequest:
    return ChatRequest(rid, user, model, (Message("user", "hello"),), SamplingOptions(max_new_tokens=tokens))


def command_line(system: FaultSystem, *arguments: str) -> str:
    """What `chatserver …` prints."""
    command = [sys.executable, "-m", "services.command", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=system.environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- two queues, two users ---------------------------------------------------------------------------------------


def test_an_entry_of_another_user_or_model_is_dropped_and_the_answer_goes_on(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Two queues must never fence each other over one answer: whoever finds that it is not his forgets it."""
    rid = "foreign"
    worker = system.start("tests.faults.worker", "--model", "other")
    system.wait_for_worker(worker)
    scenario.vanish(Question(rid, "hello", 120))
    scenario.wait_for_tokens(rid, 10)
    other = RequestQueue(system.redis, system.keys, "other")
    stranger = question_of(rid, "somebody", "other")
    assert other.enqueue(rid, "somebody", stranger.encode(), base=0)
    wait_until(lambda: other.length() == 0, "the entry of the other model to be dropped", 10)
    end = scenario.end_of(rid)
    wait_until(lambda: not system.queue.holds(rid), "the acknowledgement")
    thief = question_of(rid, "somebody")
    assert system.queue.enqueue(rid, "somebody", thief.encode(), base=9)
    wait_until(lambda: not system.queue.holds(rid), "the entry of the other user to be dropped", 10)
    assert scenario.head(rid) == end and end.begins == 1
    assert system.queue.dead_length() == other.dead_length() == 0
    worker.terminate()
    worker.wait(10)
    scenario.judge()
    outcome("an id in a second queue", times=2, requests=1, result="dropped; the answer went on")


@pytest.mark.usefixtures("no_worker")
def test_a_users_ceiling_counts_per_model_and_returns_to_nothing(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Queues of two models are two slots: a ceiling over both could only be advice."""
    system.redis.sadd(system.keys.models, "second")
    requests = Requests(system.redis, system.keys, limits=Limits(user_requests=2))
    for number in range(2):
        requests.submit(question_of(f"mine-{number}", "ann"))
        requests.submit(question_of(f"second-{number}", "ann", "second"))
    for model in (MODEL, "second"):
        with pytest.raises(UserLimit):
            requests.submit(question_of(f"too-many-{model}", "ann", model))
        assert system.journal.head(f"too-many-{model}") is None
    requests.submit(question_of("bens", "ben"))
    for rid, user in (("mine-0", "ann"), ("mine-1", "ann"), ("second-0", "ann"), ("second-1", "ann"), ("bens", "ben")):
        assert requests.cancel(rid, user) == "cancelled"
    for model in (MODEL, "second"):
        assert system.redis.exists(system.keys.users(model), system.keys.ids(model)) == 0
    system.redis.srem(system.keys.models, "second")
    scenario.judge()
    outcome("two requests of a user per model", times=2, requests=5, result="refused per model; counts are gone")


BAD_NAMES = ["", "{}", "{a}", "a{b}c", "a b", "a\nb", "ä", "a:b", "a" * 129, None, 7]


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize("field", ["id", "model"])
def test_a_name_that_cannot_be_part_of_a_key_is_refused_and_leaves_nothing(
    system: FaultSystem, scenario: Scenario, field: str, outcome: Outcome
) -> None:
    """Braces would move a key to another slot; an empty tag is no tag."""
    browser = Browser(system.of_kind("web")[0].url)
    before = set(system.redis.scan_iter("*"))
    for name in BAD_NAMES:
        payload = {**Question("fine").payload(), field: name}
        answer = browser.call("submit", payload)
        assert answer["error"]["code"] == "invalid_request", (name, answer)
    for name in BAD_NAMES:
        for event in ("watch", "cancel"):
            assert browser.call(event, {"id": name})["error"]["code"] == "invalid_request", (event, name)
    assert {key for key in system.redis.scan_iter("*") if b":worker" not in key} <= before
    browser.close()
    scenario.judge()
    outcome(f"bad {field}", times=len(BAD_NAMES), result="invalid_request; nothing stored")


# -- silence -----------------------------------------------------------------------------------------------------


def test_a_long_prefill_is_told_to_its_reader_who_then_looks_for_nothing(
    tmp_path: Path, redis_binary: Path, outcome: Outcome
) -> None:
    """Beats: eight seconds before the first token, and no audit, though one is due after five of silence."""
    options = {"num_workers": 1, "num_webs": 0, "stall_s": 60, "binary": redis_binary}
    with fault_system(tmp_path, worker_options=("--rate", "0.12"), **options) as system:
        proxy = system.client_proxy()
        looks = proxy.after_commands(
            1_000_000, lambda: None, mentioning=b"HEXISTS\r\n"
        )  # the command, not a script's text
        client = ChatClient(connect(proxy.url, role="test"), system.keys)
        request = question_of("prefill", "ann", tokens=1)
        client.submit(request)
        started = time.monotonic()
        events = list(client.follow("prefill", "ann", request=request))
        assert time.monotonic() - started > 6, "the engine was too fast to show anything"
        assert Status("running") in events and isinstance(events[-1], Done)
        head = system.journal.head("prefill")
        assert head is not None and (head.status, head.begins) == ("finished", 1)
        assert looks.commands == []
    outcome("prefill of 8 s", requests=1, result="told as running; nothing queued again")


def test_a_clock_of_redis_that_steps_forward_takes_nothing_from_the_living(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Every entry looks as if its owner had renewed nothing for an hour. All workers have seen it before: 30 tokens
    take 0.75 s, and they look around four times a second. (The server is believed about an entry at first sight.)
    """
    rids = [f"clock-{number}" for number in range(4)]
    for rid in rids:
        scenario.vanish(Question(rid, "hello", 120))
    for rid in rids:
        scenario.wait_for_tokens(rid, 30)
    steps = 0
    while not scenario.head(rids[0]).ended:
        for row in system.queue.pending():
            pretended = {"idle": 3_600_000, "justid": True}
            system.redis.xclaim(system.keys.requests(MODEL), "workers", row.owner, 0, [row.entry_id], **pretended)
        steps += 1
        time.sleep(1)  # an owner renews in between
    assert [scenario.end_of(rid).begins for rid in rids] == [1] * len(rids)
    scenario.judge()
    outcome("clock of Redis steps forward", times=steps, requests=len(rids), result="nobody lost a request")


# -- lost from the pending list, and poison ----------------------------------------------------------------------


def test_an_entry_whose_consumer_was_deleted_is_found_by_the_janitor(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """XGROUP DELCONSUMER takes the pending entries with it, and nobody would ever be sent them again."""
    rid = "stranded"
    scenario.vanish(Question(rid, "hello", 120))
    scenario.wait_for_tokens(rid, 10)
    owner = scenario.head(rid).wid
    assert system.redis.xgroup_delconsumer(system.keys.requests(MODEL), "workers", owner) == 1
    head = scenario.end_of(rid)
    assert (head.status, head.n) == ("finished", 120)
    scenario.judge()
    outcome("consumer deleted with its entry", requests=1, result="rescued and ended")


def test_a_poison_request_is_given_up_and_those_beside_it_are_answered(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Whoever runs beside it loses a worker each time, but never a try for it."""
    rids = [f"innocent-{number}" for number in range(8)]
    for rid in rids[:4]:
        scenario.vanish(Question(rid, "hello", 80))
    scenario.vanish(Question("poison", "poison", 80))
    for rid in rids[4:]:
        scenario.vanish(Question(rid, "hello", 80))
    started = time.monotonic()
    while not all(scenario.head(rid).ended for rid in ("poison", *rids)):
        assert time.monotonic() - started < DEADLINE_S, [scenario.head(rid) for rid in ("poison", *rids)]
        for part in system.of_kind("worker"):
            system.start_part(part.name)
        time.sleep(0.1)
    assert (scenario.head("poison").status, scenario.head("poison").code) == ("failed", "poison")
    assert {scenario.head(rid).status for rid in rids} == {"finished"}
    assert system.queue.dead_length() == 1
    scenario.judge()
    outcome("poison among innocents", requests=len(rids) + 1, result="given up; the others answered")


@pytest.mark.usefixtures("no_worker")
def test_a_dead_letter_runs_again_under_a_new_id(system: FaultSystem, scenario: Scenario, outcome: Outcome) -> None:
    """An end is final: what is driven again has an id of its own, and the old one stays as it ended."""
    client = scenario.vanish(Question("late", "hello", 20))
    system.redis.hincrby(system.keys.state("late"), "created_ms", -10_000)  # it has waited for ten seconds
    Requests(system.redis, system.keys, limits=Limits(wait_s=9)).expire("late", scenario.head("late"))
    before = scenario.head("late")
    assert (before.status, before.code) == ("failed", "expired")
    printed = command_line(system, "dead", "retry", "late")
    new_rid = printed.split()[-1]
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGCONT)
    assert scenario.end_of(new_rid).status == "finished" and scenario.head(new_rid).user == client.user
    assert scenario.head("late") == before
    client.readings.clear()  # it expired on purpose, which its question does not explain
    scenario.judge()
    outcome("dead letter driven again", requests=1, result="answered under a new id")


# -- expiry ------------------------------------------------------------------------------------------------------


def test_a_state_that_vanishes_under_its_worker_is_made_again(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """GONE: the entry is still the worker's, and it holds all tokens."""
    rid = "state-gone"
    scenario.vanish(Question(rid, "hello", 120))
    scenario.wait_for_tokens(rid, 20)
    owner = scenario.head(rid).wid
    system.redis.delete(system.keys.state(rid), system.keys.journal(rid))
    end = scenario.end_of(rid)
    read = system.journal.read(rid)
    assert read is not None and problems(rid, read[1]) == []
    assert (end.status, end.wid, end.n) == ("finished", owner, 120)
    scenario.judge()
    outcome("state gone under its worker", requests=1, result="made again, answer whole")


@pytest.mark.usefixtures("no_worker")
def test_a_reader_of_a_state_that_vanished_is_told_that_it_is_gone(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Its submitter would submit again; any other reader hears `gone` after a while, and does not wait for ever."""
    rid = "gone"
    requests = Requests(system.redis, system.keys)
    requests.submit(question_of(rid, "ann"))
    client = ChatClient(connect(system.server.url, role="test"), system.keys)
    stream = client.follow(rid, "ann")
    first = next(stream)
    assert isinstance(first, Status) and first.state == "queued"
    assert system.queue.withdraw(rid, "ann")
    system.redis.delete(system.keys.state(rid))
    started = time.monotonic()
    done = list(stream)[-1]
    assert isinstance(done, Done) and (done.status, done.code) == ("failed", "gone")
    assert time.monotonic() - started < DEADLINE_S
    scenario.judge()
    outcome("state gone under a reader", requests=1, result=f"gone after {time.monotonic() - started:.0f} s")


# -- wall clocks of several machines -----------------------------------------------------------------------------


@pytest.mark.parametrize("offset_s", [-4000, 4000])
def test_a_worker_whose_date_is_wrong_answers_and_is_listed_like_any_other(
    system: FaultSystem, scenario: Scenario, offset_s: int, outcome: Outcome
) -> None:
    """Leases, deadlines and presence go by the clock of Redis."""
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGSTOP)
    worker = system.start("tests.faults.skewed", str(offset_s), "tests.faults.worker", "--rate", str(RATE))
    system.wait_for_worker(worker)
    tab = scenario.ask(scenario.tab(), Question(f"skewed-tab{offset_s}", "hello", 120))
    terminal = scenario.ask(scenario.terminal(), Question(f"skewed-terminal{offset_s}", "hello", 120))
    scenario.wait_for_tokens(f"skewed-tab{offset_s}", 10)
    status = json.loads(command_line(system, "status", "--json"))
    (row,) = [row for row in status["workers"] if row["pid"] == worker.pid]
    assert row["age_s"] <= 5 and all(0 <= request["age_s"] < 30 for request in status["requests"])
    assert tab.result().done and terminal.result().done
    for rid in (f"skewed-tab{offset_s}", f"skewed-terminal{offset_s}"):
        assert str(worker.pid) in scenario.head(rid).wid and scenario.head(rid).begins == 1
    worker.terminate()
    worker.wait(10)
    scenario.resume_workers()
    scenario.judge()
    outcome("date of a worker is wrong", requests=2, result="nothing changes")


def test_a_cookie_of_a_web_process_whose_date_is_ahead_is_good_at_the_others(
    tmp_path: Path, redis_binary: Path, outcome: Outcome
) -> None:
    """Its signature was from the future, and whoever came with it was a stranger."""
    with fault_system(tmp_path, num_workers=0, num_webs=2, binary=redis_binary) as system:
        ahead = system.parts["web-0"]
        system.send_signal(ahead.name, signal.SIGKILL)
        ahead.command = ("tests.faults.skewed", "60", *ahead.command)
        system.start_part(ahead.name)
        system.ready(ahead.name)
        cookie = session_cookie(ahead.url)
        browser = Browser(system.parts["web-1"].url, cookie)
        assert browser.client.connected
        browser.close()
    outcome("date of a web process is ahead", result="its cookies are good elsewhere")
