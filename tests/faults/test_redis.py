"""Redis dies, loses its tail, stands still, runs out of memory or cannot be reached: each rule of the wire, one by one.

Each scenario is made to fail when its rule is switched off. Where a reader's audit would hide that, the submitter
vanishes. A cut of the append-only file stands for a power failure without `appendfsync always`.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.chat.requests import Requests
from services.chat.scripts import script
from services.connection.embedded import candidates
from services.wire.messages import ChatRequest, Event, Message
from tests.end_to_end.system import Browser, wait_until
from tests.faults.answers import problems
from tests.faults.conftest import Outcome
from tests.faults.proxy import Proxy
from tests.faults.resp import messages
from tests.faults.scenario import Scenario, shared_system
from tests.faults.system import FaultSystem, fault_system
from tests.faults.tabs import Question, Reading, Tab, Terminal
from tests.faults.worker import MODEL

RATE = 40  # tokens per second and request
LEASE_S = 1.5


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    folder = tmp_path_factory.mktemp("redis-faults")
    with shared_system(folder, worker_options=("--rate", str(RATE)), binary=redis_binary, max_queue=6) as made:
        yield made


@pytest.fixture(scope="module")
def patient_system(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[FaultSystem]:
    """With the lease of production, so that an owner has the time to come back, and no engine that counts as hung."""
    folder = tmp_path_factory.mktemp("patient")
    options = {"num_workers": 2, "lease_s": 3, "stall_s": 10, "binary": redis_binary}
    with shared_system(folder, worker_options=("--rate", str(RATE)), **options) as made:
        yield made


@pytest.fixture
def patient(patient_system: FaultSystem) -> Iterator[Scenario]:
    made = Scenario(patient_system)
    yield made
    made.heal()


Client = Callable[[Scenario], Tab | Terminal]
BOTH_CLIENTS = pytest.mark.parametrize("client", [Scenario.tab, Scenario.terminal], ids=["tab", "terminal"])


# -- the tail of the file is lost --------------------------------------------------------------------------------


@BOTH_CLIENTS
def test_a_worker_sends_again_what_redis_lost(patient: Scenario, client: Client, outcome: Outcome) -> None:
    """The offset check: an append that does not continue the journal is answered with where to start again."""
    rid = f"resent-{client.__name__}"
    reader = client(patient)
    asked = patient.ask(reader, Question(rid, "hello", 120))
    patient.wait_for_tokens(rid, 30)
    before = patient.head(rid)
    patient.system.kill_redis(patient.offset_before_token(rid, 10))
    reading = asked.result()
    after = patient.head(rid)
    assert (after.wid, after.nonce, after.begins) == (before.wid, before.nonce, 1)
    assert reading.rewinds == 0 and after.status == "finished"
    patient.judge(lossy=True)
    outcome("file cut, owner lives", requests=1, result="sent again, no rewind")


def test_a_ghost_with_the_epoch_of_the_owner_writes_nothing(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """The nonce: after a loss two workers hold the same delivery count, and one of them has more tokens to offer."""
    rid = "ghost"
    scenario.vanish(Question(rid, "hello", 280))
    first = scenario.begun_by(rid, 1, tokens=8)
    system.send_signal(first.name, signal.SIGSTOP)
    second = scenario.begun_by(rid, 2, tokens=100)
    system.send_signal(second.name, signal.SIGSTOP)
    ghost = scenario.head(rid)
    entry_id = scenario.pending(ghost.wid).entry_id
    system.kill_redis(system.aof_offset_before(b"XCLAIM", ghost.wid.encode(), entry_id.encode()))
    third = scenario.begun_by(rid, 2, tokens=scenario.head(rid).n + 5)
    now = scenario.head(rid)
    assert third.name not in (first.name, second.name)
    assert now.epoch == ghost.epoch and now.nonce != ghost.nonce
    assert now.n < ghost.n - 20 and not now.ended
    # The owner holds still, and the ghost cannot ask for its lease: it has the time to obey a server that tells it
    # where to start again.
    system.send_signal(third.name, signal.SIGSTOP)
    appends = second.proxy.after_commands(1_000_000, lambda: None, mentioning=script("append").sha.encode())
    lease = second.proxy.hold_when(script("hold").sha.encode())
    system.send_signal(second.name, signal.SIGCONT)
    while len(appends.commands) < 2:
        assert lease.reached.wait(5) and entry_id.encode() in lease.command
        lease = second.proxy.hold_when(script("hold").sha.encode())
        second.proxy.reset()
    system.send_signal(third.name, signal.SIGCONT)
    second.proxy.release(lease)
    scenario.wait_for_tokens(rid, now.n + 20)
    system.send_signal(first.name, signal.SIGCONT)
    assert scenario.end_of(rid).status == "finished"
    read = system.journal.read(rid)
    assert read is not None and problems(rid, read[1]) == []
    assert ghost.nonce not in {event.nonce for event in read[1]}
    scenario.judge(lossy=True)
    outcome("same epoch twice after a cut", requests=1, result="ghosts refused, no splice")


@BOTH_CLIENTS
def test_text_that_redis_and_its_worker_lost_is_replaced(
    system: FaultSystem, scenario: Scenario, client: Client, outcome: Outcome
) -> None:
    """The rewind: the one double fault that a reader sees, and sees told."""
    rid = f"rewound-{client.__name__}"
    reader = client(scenario)
    asked = scenario.ask(reader, Question(rid, "hello", 80))
    owner = scenario.begun_by(rid, 1, tokens=30)
    shown = wait_until(lambda: reader.readings[0].text[60:] and reader.readings[0].text, "text in front of the reader")
    cut = scenario.offset_before_token(rid, 6)
    system.send_signal(owner.name, signal.SIGKILL)
    system.kill_redis(cut)
    reading = asked.result()
    assert reading.rewinds >= 1 and not reading.text.startswith(shown)
    assert scenario.head(rid).begins == 2
    scenario.judge(lossy=True)
    outcome("file cut, owner killed", requests=1, result="rewound to the journal")


def test_an_accepted_request_that_left_the_queue_is_queued_again(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """The audit: state there, entry gone. Its reader stays and looks for it."""
    rid = "audited"
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGSTOP)
    reader = scenario.tab()
    asked = scenario.ask(reader, Question(rid, "hello", 20))
    wait_until(lambda: reader.readings[0].acknowledged_at, "the acknowledgement")
    system.kill_redis(system.aof_offset_before(b"XADD", b":requests", rid.encode()))
    assert scenario.head(rid).status == "new" and not system.queue.holds(rid)
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGCONT)
    assert asked.result().done and scenario.head(rid).status == "finished"
    scenario.judge(lossy=True)
    outcome("file cut before the entry", requests=1, result="queued again by its reader")


def test_an_acknowledgement_is_never_repeated_on_the_word_of_a_redis_that_died(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Finish was answered and then lost: only a second finish may be followed by the acknowledgement."""
    rid = "reverified"
    scenario.vanish(Question(rid, "hello", 60))
    owner = scenario.begun_by(rid, 1)
    held = owner.proxy.hold_when(script("ack").sha.encode())
    assert held.reached.wait(10) and rid.encode() in held.command
    assert scenario.head(rid).ended
    system.kill_redis(system.aof_offset_before(f"{{{rid}}}:state".encode(), b"ended_ms"))
    owner.proxy.release(held)
    assert scenario.end_of(rid).status == "finished"
    wait_until(lambda: not system.queue.holds(rid), "the acknowledgement")
    scenario.judge(lossy=True)
    outcome("file cut between finish and ack", requests=1, result="finished again, then acknowledged")


@pytest.mark.parametrize("kind", candidates())
def test_half_a_script_is_never_applied_not_even_at_the_second_start(
    kind: str, tmp_path: Path, outcome: Outcome
) -> None:
    with fault_system(tmp_path, num_workers=0, num_webs=0, binary=candidates()[kind]) as system:
        snapshots = _write_one_request(system)
        system.server.kill()
        (aof,) = (system.server.folder / "appendonlydir").glob("*.incr.aof")
        folder, saved = aof.parent, tmp_path / "saved"
        shutil.copytree(folder, saved)
        cuts = [(name, cut) for name in snapshots for cut in _cuts_inside(aof.read_bytes(), name)]
        for name, cut in cuts:
            shutil.rmtree(folder)
            shutil.copytree(saved, folder)
            with aof.open("rb+") as file:
                file.truncate(cut)
            system.server.start()
            assert _snapshot(system) == snapshots[name], f"{name}, cut at {cut}"
            system.journal.create(replace(HALF, rid="after"))  # its EXEC would end what was cut, at the next start
            system.server.kill()
            system.server.start()
            assert _snapshot(system) == snapshots[name], f"{name}, cut at {cut}, second start"
            system.server.kill()
    assert len(cuts) >= 6
    outcome(f"file cut inside a script, {kind}", times=len(cuts), result="nothing of it is there")


HALF = ChatRequest("half", "ann", MODEL, (Message("user", "hello"),))


def _write_one_request(system: FaultSystem) -> dict[str, dict[bytes, object]]:
    """Submit, begin and end one request; for two scripts by a mark of theirs, what was there before them."""
    journal = system.journal
    journal.create(HALF)
    snapshots = {":requests": _snapshot(system)}
    system.queue.enqueue(HALF.rid, HALF.user, HALF.encode())
    rules = {"max_tries": 3, "max_begins": 20, "deadline_ms": 60_000}
    journal.begin(HALF, HALF.encode(), epoch=1, nonce="n1", wid="w1", **rules)
    journal.load_append()
    system.redis.execute_command(*journal.append_command("half", 1, Event("tokens", "n1", 0, 0, (1, 2), "ab")))
    snapshots["ended_ms"] = _snapshot(system)
    assert journal.finish("half", 1, Event("finished", "n1", 2, 2, code="stop")) is None
    return snapshots


def _cuts_inside(data: bytes, mark: str) -> list[int]:
    """The middle of each command of the first transaction that holds a mark."""
    spans = list(messages(data))
    at = next(n for n, (start, end) in enumerate(spans) if mark.encode() in data[start:end])
    first = next(n for n in range(at, -1, -1) if b"MULTI" in data[slice(*spans[n])])
    last = next(n for n in range(at, len(spans)) if b"EXEC" in data[slice(*spans[n])])
    return [(start + end) // 2 for start, end in spans[first + 1 : last + 1]]


def _snapshot(system: FaultSystem) -> dict[bytes, object]:
    """Everything that is stored, by key; not what is written between two starts."""
    read: dict[bytes, Callable[[bytes], object]] = {
        b"hash": system.redis.hgetall,
        b"set": system.redis.smembers,
        b"zset": lambda key: system.redis.zrange(key, 0, -1, withscores=True),
        b"stream": system.redis.xrange,
    }
    keys = [key for key in system.redis.scan_iter("*") if b"{after}" not in key]
    return {key: read[system.redis.type(key)](key) for key in keys}


# -- Redis is away for a while -----------------------------------------------------------------------------------


def test_after_an_outage_longer_than_a_lease_nobody_loses_a_request(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Every lease looks expired, and one owner is later than the others to renew."""
    rids = [f"outage-{number}" for number in range(6)]
    for rid in rids:
        scenario.vanish(Question(rid, "hello", 160))
    for rid in rids:
        scenario.wait_for_tokens(rid, 5)
    owners = {rid: scenario.head(rid).wid for rid in rids}
    late, punctual = _late_and_punctual(system, scenario, rids)
    system.server.kill()
    held = late.hold_when(script("hold").sha.encode())
    time.sleep(2 * LEASE_S)  # the fault
    system.server.start()
    wait_until(lambda: scenario.idle_s(punctual) < LEASE_S / 3, "a renewal by the others")
    wait_for_looks(part.proxy for part in system.of_kind("worker") if part.proxy is not late)
    late.release(held)
    for rid in rids:
        head = scenario.end_of(rid)
        assert (head.begins, head.wid, head.n) == (1, owners[rid], 160)
    scenario.judge()
    outcome("Redis away for two leases", requests=len(rids), result="nobody lost a request")


def wait_for_looks(proxies: Iterable[Proxy]) -> None:
    """Until each of these workers has looked at the pending list twice."""
    looks = [proxy.after_commands(1_000_000, lambda: None, mentioning=b"XPENDING") for proxy in proxies]
    wait_until(lambda: all(len(look.commands) >= 2 for look in looks), "two looks of each")


def _late_and_punctual(system: FaultSystem, scenario: Scenario, rids: list[str]) -> tuple[Proxy, str]:
    """The proxy of one worker that runs something, and the id of another."""
    late = system.owner(rids[0])
    others = [scenario.head(rid).wid for rid in rids if scenario.head(rid).wid != scenario.head(rids[0]).wid]
    assert late is not None and others, "one worker runs everything"
    return late.proxy, others[0]


def test_a_worker_that_reconnects_lets_the_owners_renew_first(patient: Scenario, outcome: Outcome) -> None:
    """The reconnect grace: it sees an entry for the first time, with a lease that is over."""
    system, newcomer = patient.system, "worker-1"
    system.send_signal(newcomer, signal.SIGSTOP)
    patient.vanish(Question("grace", "hello", 400))
    owner = patient.begun_by("grace", 1, tokens=20)
    system.server.kill()
    held = owner.proxy.hold_when(script("hold").sha.encode())
    system.send_signal(newcomer, signal.SIGCONT)
    time.sleep(3.5)  # the fault: longer than a lease
    system.server.start()
    assert held.reached.wait(5)
    wait_for_looks([system.parts[newcomer].proxy])
    owner.proxy.release(held)
    end = patient.end_of("grace")
    assert (end.begins, str(owner.pid) in end.wid) == (1, True), end
    patient.judge()
    outcome("Redis away, owner late to renew", requests=1, result="waited for")


def test_redis_stands_still_for_ten_seconds_and_everybody_goes_on(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Nobody gets an error if it lasts less than a timeout: the leases look expired all the same."""
    rids = [f"paused-{number}" for number in range(5)]
    clients = [scenario.tab(), scenario.tab(), scenario.terminal(), scenario.terminal(), scenario.terminal()]
    asked = [scenario.ask(client, Question(rid, "hello", 160)) for client, rid in zip(clients, rids, strict=True)]
    for rid in rids:
        scenario.wait_for_tokens(rid, 10)
    system.pause_redis(10)
    for reading in [future.result() for future in asked]:
        assert len(reading.done) == 1
    assert [scenario.head(rid).begins for rid in rids] == [1] * len(rids)
    scenario.judge()
    outcome("Redis stands still for 10 s", requests=len(rids), result="all went on, nobody lost a request")


# -- messages get lost -------------------------------------------------------------------------------------------


@BOTH_CLIENTS
def test_a_reader_who_is_sent_nothing_reads_everything_by_asking(
    system: FaultSystem, scenario: Scenario, client: Client, outcome: Outcome
) -> None:
    """The poll: every published message is lost, the last one included."""
    own = system.client_proxy()
    proxies = [own, *(part.proxy for part in system.of_kind("web"))]
    for proxy in proxies:
        proxy.drop_pushes(1)
    reader = scenario.terminal(own.url) if client is Scenario.terminal else scenario.tab()
    reading = scenario.ask(reader, Question(f"polled-{client.__name__}", "hello", 60)).result()
    assert len(reading.done) == 1 and sum(proxy.num_dropped for proxy in proxies) > 0
    own.heal()
    scenario.judge()
    outcome("every push is lost", requests=1, result="read by polling")


@BOTH_CLIENTS
def test_what_happened_before_the_subscription_is_read_at_its_confirmation(
    system: FaultSystem, scenario: Scenario, client: Client, outcome: Outcome
) -> None:
    """Subscribe, then read: the answer ends while the subscription is on its way.

    It takes 0.75 s, which is after the reader's first look and well before its next poll, two seconds later.
    """
    rid = f"late-{client.__name__}"
    own = system.client_proxy()
    is_terminal = client is Scenario.terminal
    proxy = own if is_terminal else system.of_kind("web")[0].proxy
    channel = system.keys.events(rid).encode()
    held = proxy.hold_when(b"SUBSCRIBE\r\n$%d\r\n%s\r\n" % (len(channel), channel))  # of a sharded channel, too
    reader = scenario.terminal(own.url) if is_terminal else scenario.tab()
    asked = scenario.ask(reader, Question(rid, "hello", RATE * 3 // 4))
    assert held.reached.wait(10)
    scenario.end_of(rid)
    assert not reader.readings[0].done
    released_at = time.monotonic()
    proxy.release(held)
    reading = asked.result()
    assert reading.done_at is not None and reading.done_at - released_at < 0.8
    scenario.judge()
    outcome("answer ends before subscription", requests=1, result="read at its confirmation")


# -- one connection is hurt --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hurt:
    """What is done to all connections of one process, and how long it lasts."""

    name: str
    begin: Callable[[Proxy], object]
    lasts_s: float
    end: Callable[[Proxy], object]


HURTS = (
    Hurt("reset", Proxy.reset, 0, lambda proxy: None),
    Hurt("delayed by 0.1 s", lambda proxy: proxy.delay(0.1), 3, lambda proxy: proxy.delay(0)),
    Hurt("silent for 3 s", Proxy.blackhole, 3, Proxy.restore),
    Hurt("silent for 12 s", Proxy.blackhole, 12, Proxy.restore),
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("hurt", HURTS, ids=lambda hurt: hurt.name.replace(" ", "-"))
@pytest.mark.parametrize("target", ["worker", "web", "terminal"])
def test_an_answer_goes_on_when_the_connections_of_one_process_are_hurt(
    system: FaultSystem, scenario: Scenario, target: str, hurt: Hurt, outcome: Outcome
) -> None:
    own = system.client_proxy()
    reader = scenario.terminal(own.url) if target == "terminal" else scenario.tab()
    rid = f"{target}-{HURTS.index(hurt)}"
    asked = scenario.ask(reader, Question(rid, "hello", 120))
    owner = scenario.begun_by(rid, 1, tokens=20)
    proxy = {"worker": owner.proxy, "web": system.of_kind("web")[0].proxy, "terminal": own}[target]
    hurt.begin(proxy)
    silence_s = _longest_silence(reader.readings[0], hurt, proxy)
    assert asked.result().done
    assert scenario.head(rid).begins <= (2 if target == "worker" else 1)
    own.heal()
    scenario.judge()
    outcome(f"{target} {hurt.name}", requests=1, result=f"went on; silent for {_rounded(silence_s)}")


def _longest_silence(reading: Reading, hurt: Hurt, proxy: Proxy) -> float:
    """Seconds until the reader had text again, at most, until its end; heals when it is time."""
    begun = heard = time.monotonic()
    length, longest, heals = len(reading.text), 0.0, False
    while not reading.done and time.monotonic() - begun < 60:
        now = time.monotonic()
        if not heals and now - begun >= hurt.lasts_s:
            hurt.end(proxy)
            heals = True
        if len(reading.text) != length:
            length, heard = len(reading.text), now
        longest = max(longest, now - heard)
        time.sleep(0.01)
    if not heals:
        hurt.end(proxy)
    return longest


def _rounded(seconds: float) -> str:
    return "less than 1 s" if seconds < 1 else f"{seconds:.0f} s"


# -- no room -----------------------------------------------------------------------------------------------------


def test_a_full_memory_refuses_the_new_and_ends_what_runs(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """The limit stays where it is. Running answers stood still until somebody raised it."""
    browser = Browser(system.of_kind("web")[0].url)
    scenario.vanish(Question("memory-finish", "hello", 20))
    finisher = scenario.begun_by("memory-finish", 1)
    held = finisher.proxy.hold_when(script("finish").sha.encode())
    assert held.reached.wait(10)
    asked = scenario.ask(scenario.tab(), Question("memory-run", "hello", 120))
    canceller = scenario.vanish(Question("memory-cancel", "hello", 600))
    for rid in ("memory-run", "memory-cancel"):
        scenario.wait_for_tokens(rid, 20)
    system.redis.config_set("maxmemory", system.redis.info("memory")["used_memory"] // 2)

    refused = browser.ask("memory-new", "hello", model=system.queue.model)
    assert refused["error"]["code"] == "busy" and refused["error"]["retry_after_s"] > 0
    assert "the memory of Redis is" in refused["error"]["message"]
    assert not list(system.redis.scan_iter("*memory-new*"))
    finisher.proxy.release(held)
    assert scenario.end_of("memory-finish").status == "finished"
    canceller.readings[0].asked_to_cancel = True
    assert Requests(system.redis, system.keys).cancel("memory-cancel", canceller.user) == "cancelled"
    wait_until(lambda: not system.queue.holds("memory-cancel"), "the cancelled request's acknowledgement")
    assert asked.result().done and scenario.head("memory-run").begins == 1
    assert len(system.registry.workers()) == 3 and system.queue.length() == 0

    system.redis.config_set("maxmemory", 0)
    assert browser.ask("memory-new", "hello", model=system.queue.model, max_new_tokens=5)["ok"]
    browser.wait_for_done("memory-new")
    browser.close()
    scenario.judge()
    outcome("Redis out of memory", requests=4, result="refused the new, ended the running")


def test_a_request_that_waited_when_memory_ran_out_is_answered(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """What would free memory could not be written: the queue stood still for ever."""
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGSTOP)
    scenario.vanish(Question("waited", "hello", 20))
    system.redis.config_set("maxmemory", 1)
    for part in system.of_kind("worker"):
        system.send_signal(part.name, signal.SIGCONT)
    assert (scenario.end_of("waited").status, scenario.head("waited").begins) == ("finished", 1)
    wait_until(lambda: system.queue.length() == 0, "an empty queue")
    assert system.redis.config_get("maxmemory") == {"maxmemory": "1"}
    system.redis.config_set("maxmemory", 0)
    scenario.judge()
    outcome("out of memory at the begin", requests=1, result="answered without more room")


def test_a_full_queue_refuses_with_a_hint_and_the_same_id_may_come_again(
    system: FaultSystem, scenario: Scenario, outcome: Outcome
) -> None:
    """Terminals are let in past the ceiling of this test; the tab is not."""
    browser = Browser(system.of_kind("web")[0].url)
    for number in range(6):
        scenario.vanish(Question(f"fills-{number}", "hello", 120))
    for rid in ("refused-1", "refused-2"):
        answer = browser.ask(rid, "hello", model=system.queue.model)
        assert answer["error"]["code"] == "busy" and answer["error"]["retry_after_s"] > 0
        assert system.redis.keys(f"*{rid}*") == [] and not system.queue.holds(rid)
    tab = scenario.tab(browser.cookie)
    reading = scenario.ask(tab, Question("refused-1", "hello", 20)).result()
    assert reading.refusals["busy"] > 0 and reading.done and scenario.head("refused-1").begins == 1
    assert system.redis.keys("*refused-2*") == []
    browser.close()
    scenario.judge()
    outcome("queue full", times=3, requests=3, result="busy with a hint; accepted later")
