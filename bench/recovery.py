"""How long readers wait after each kind of fault, with the default settings: `python -m bench.recovery`.

Real processes on the loopback: three fault workers (tests/faults/worker.py) with four slots each, two web processes and
a Redis that syncs every write. The readers are strict clients (tests/faults/tabs.py): tabs over a web process, and
terminals straight at Redis. A reader's wait runs from the fault (or from the first PING that Redis answers again) to
the end of the longest pause that had begun by then. `--only drain` runs the scenarios whose name contains a word.

With all slots full, an answer that was handed back waits for a slot: for the end of another, or for the new start of
its worker. The targets allow for that, and it is a violation when somebody from the queue is served before it.

The exit code is 1 when a target is missed, or when an invariant of tests/faults/invariants.py does not hold afterwards.
"""

import argparse
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import redis

from bench.system import percentile, unwind_on_sigterm, wait_until
from services.chat.requests import Requests
from services.connection.connect import connect
from services.connection.embedded import candidates
from services.settings import Settings
from tests.faults.invariants import violations
from tests.faults.system import SHORT, FaultSystem, Part, fault_system
from tests.faults.tabs import Behaviour, Question, Reading, Tab, Terminal

NUM_WORKERS, SLOTS, STEPS_PER_S = 3, 4, 20
NUM_CLIENTS = 20  # 12 run, 8 wait
NUM_RUNNING = NUM_WORKERS * SLOTS
SETTLE_S = 0.2  # what was on its way at the fault has arrived
GIVE_UP_S = 60.0  # counts as the wait of a reader whose answer does not go on
DOCKER_GRACE_S = 10.0
LONG = 600  # tokens: an answer that does not end by itself within a round


@dataclass
class Scenario:
    """The waits of all rounds of one fault. `target_s` is for the 95th percentile; 0: no target."""

    name: str
    target_s: float
    rounds: int = 0
    waits_s: dict[str, list[float]] = field(default_factory=dict)  # by the kind of reader
    violations: list[str] = field(default_factory=list)

    def add(self, reader: str, wait_s: float) -> None:
        self.waits_s.setdefault(reader.partition("-")[0], []).append(round(wait_s, 3))

    @property
    def all_s(self) -> list[float]:
        return [wait for waits in self.waits_s.values() for wait in waits]

    @property
    def met(self) -> bool:
        return not self.target_s or percentile(self.all_s, 95) <= self.target_s


@dataclass
class Asked:
    """A question on its way; its reading fills while the thread runs."""

    reading: Reading
    thread: threading.Thread

    def resumed(self, since: float) -> bool:
        """Whether text has come after `since` that was not on its way by then."""
        return bool(self.reading.done) or any(at > since + SETTLE_S for at in self.reading.arrivals[-50:])

    def wait_s(self, since: float) -> float:
        """Seconds from `since` to the end of the longest pause that had begun soon after it."""
        pairs = itertools.pairwise(self.reading.arrivals)
        pauses = [(after - before, after) for before, after in pairs if before <= since + SETTLE_S and after > since]
        return max(pauses)[1] - since if pauses else GIVE_UP_S

    def longest_pause_s(self) -> float:
        return max((after - before for before, after in itertools.pairwise(self.reading.arrivals)), default=0.0)


class Stage:
    """The system with its readers. A client asks one question at a time."""

    def __init__(self, system: FaultSystem) -> None:
        self.system = system
        self._requests = Requests(system.redis, system.keys)
        self._chooser = random.Random(1)
        self._numbers = itertools.count()
        urls = [part.url for part in system.of_kind("web")]
        self.clients: list[Tab | Terminal] = []
        for number in range(NUM_CLIENTS // 2):
            self.clients.append(Tab(f"tab-{number}", urls[number % 2 :] + urls[: number % 2]))
            self.clients.append(Terminal(f"terminal-{number}", system.server.url, system.keys))

    def ask(self, client: Tab | Terminal, tokens: int = LONG) -> Asked:
        """Returns as soon as the client is at it."""
        question = Question(f"{client.name}-q{next(self._numbers):05d}", "hello", tokens)
        arguments = (question, Behaviour(), time.monotonic() + 3 * GIVE_UP_S)
        thread = threading.Thread(target=client.run, args=arguments, daemon=True)
        thread.start()
        reading = wait_until(lambda: self._reading(client, question.rid), "a client's start", 5)
        return Asked(reading, thread)

    @staticmethod
    def _reading(client: Tab | Terminal, rid: str) -> Reading | None:
        return next((reading for reading in reversed(client.readings) if reading.rid == rid), None)

    def ask_all(self, clients: Iterable[Tab | Terminal]) -> list[Asked]:
        """Long answers, all running when this returns."""
        asked = [self.ask(client) for client in clients]
        wait_until(lambda: all(len(one.reading.arrivals) >= 5 for one in asked), "all answers' start", GIVE_UP_S)
        return asked

    def random_tokens(self) -> int:
        """The length of an answer that takes one to five seconds."""
        return self._chooser.randint(STEPS_PER_S, 5 * STEPS_PER_S)

    def owned_by(self, part: Part, asked: Iterable[Asked]) -> list[Asked]:
        return [one for one in asked if not one.reading.done and self.system.owner(one.reading.rid) is part]

    def note(self, scenario: Scenario, asked: Sequence[Asked], since: float) -> None:
        """Wait until all of them go on, and add what they waited from `since`."""
        self.wait_for(lambda: all(one.resumed(since) for one in asked))
        for one in asked:
            scenario.add(one.reading.reader, one.wait_s(since) if one.resumed(since) else GIVE_UP_S)

    @staticmethod
    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)

    def end(self, asked: Iterable[Asked]) -> None:
        """Stop what still runs; every reader has its end when this returns."""
        for one in asked:
            one.reading.asked_to_cancel = True
            head = self.system.journal.head(one.reading.rid)
            if head is not None and not head.ended:
                self._requests.cancel(one.reading.rid, head.user)
        for one in asked:
            one.thread.join(GIVE_UP_S)

    def restart(self, part: Part) -> None:
        """Start a part again once it has ended, and wait until it serves."""
        assert part.process is not None
        part.process.wait(GIVE_UP_S)
        self.system.start_part(part.name)
        self.system.ready(part.name)


# -- one round of each fault ---------------------------------------------------------------------------------------


def hurt_owner(stage: Stage, scenario: Scenario, number: int, how: signal.Signals) -> None:
    """Two tabs and two terminals read; the worker of one of them gets a signal."""
    asked = stage.ask_all(stage.clients[:4])
    victim = stage.system.owner(asked[number % 4].reading.rid)
    assert victim is not None, "an answer that runs has an owner"
    mine = stage.owned_by(victim, asked)
    since = time.monotonic()
    stage.system.send_signal(victim.name, how)
    stage.note(scenario, mine, since)
    stage.end(asked)
    stage.restart(victim)


def hurt_owner_under_load(stage: Stage, scenario: Scenario, number: int, how: signal.Signals) -> None:
    """Every slot is taken, eight wait; the worker is started again at once, as its supervisor would."""
    asked = [stage.ask(client, stage.random_tokens()) for client in stage.clients]
    wait_until(lambda: sum(len(one.reading.arrivals) >= 3 for one in asked) >= NUM_RUNNING, "a full house", GIVE_UP_S)
    victim = stage.system.of_kind("worker")[number % NUM_WORKERS]
    mine = stage.owned_by(victim, asked)
    waiting = [one for one in asked if not one.reading.arrivals]
    since = time.monotonic()
    stage.system.send_signal(victim.name, how)
    stage.restart(victim)
    stage.note(scenario, mine, since)
    if how == signal.SIGTERM:
        scenario.violations += _overtaken(mine, waiting, since)
    for one in asked:
        one.thread.join(GIVE_UP_S)


def _overtaken(handed_back: Iterable[Asked], waiting: Iterable[Asked], since: float) -> Iterator[str]:
    """Who ran before goes first: nobody from the queue starts before the last of them goes on."""
    last = max((since + one.wait_s(since) for one in handed_back), default=since)
    for one in waiting:
        if one.reading.arrivals and since + 1 < one.reading.arrivals[0] < last - SETTLE_S:
            yield f"{one.reading.rid} waited and was served {last - one.reading.arrivals[0]:.1f} s before a handback"


def rolling_restart(stage: Stage, scenario: Scenario, number: int) -> None:
    """Drain and start one worker after the other while all clients ask without pause; the longest pause of each."""
    stop = threading.Event()
    finished: list[Asked] = []

    def keep_asking(client: Tab | Terminal, chooser: random.Random) -> None:
        while not stop.is_set():
            finished.append(stage.ask(client, chooser.randint(STEPS_PER_S, 5 * STEPS_PER_S)))
            finished[-1].thread.join()

    askers = [
        threading.Thread(target=keep_asking, args=(client, random.Random(f"{number} {client.name}")), daemon=True)
        for client in stage.clients
    ]
    for asker in askers:
        asker.start()
    wait_until(lambda: stage.system.queue.length() > NUM_RUNNING, "a full house", GIVE_UP_S)
    for part in stage.system.of_kind("worker"):
        stage.system.send_signal(part.name, signal.SIGTERM)
        stage.restart(part)
    stop.set()
    for asker in askers:
        asker.join(2 * GIVE_UP_S)
    for one in finished:
        scenario.add(one.reading.reader, one.longest_pause_s())


def kill_redis(stage: Stage, scenario: Scenario, newcomer: Scenario, down_s: float) -> None:
    """SIGKILL and a new start after `down_s`; waits run from the first PING that is answered."""
    asked = stage.ask_all(stage.clients[:4])
    stage.system.server.kill()
    threading.Event().wait(down_s)
    starter = threading.Thread(target=stage.system.server.start)
    starter.start()
    since = _first_ping(stage.system)
    fresh = stage.ask(stage.clients[4 + newcomer.rounds % 2])
    starter.join()
    newcomer.rounds += 1
    stage.wait_for(lambda: bool(fresh.reading.arrivals))
    newcomer.add(fresh.reading.reader, fresh.reading.arrivals[0] - since if fresh.reading.arrivals else GIVE_UP_S)
    stage.note(scenario, asked, since)
    stage.end([*asked, fresh])


def _first_ping(system: FaultSystem) -> float:
    """When Redis answers again."""
    with connect(system.server.url, role="test") as client:

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

        wait_until(answers, "Redis' answer to PING", GIVE_UP_S)
    return time.monotonic()


def kill_web(stage: Stage, scenario: Scenario, number: int) -> None:
    """The tabs of a web process that dies go on over the other one."""
    tabs = [client for client in stage.clients if isinstance(client, Tab)][:4]
    asked = stage.ask_all(tabs)
    victim = next(part for part in stage.system.of_kind("web") if part.url == tabs[number % len(tabs)].url)
    mine = [one for tab, one in zip(tabs, asked, strict=True) if tab.url == victim.url]
    since = time.monotonic()
    stage.system.send_signal(victim.name, signal.SIGKILL)
    stage.note(scenario, mine, since)
    stage.end(asked)
    stage.restart(victim)


def pause_redis(stage: Stage, scenario: Scenario, pause_s: float) -> None:
    asked = stage.ask_all(stage.clients[:4])
    stage.system.pause_redis(pause_s)
    stage.note(scenario, asked, time.monotonic())
    stage.end(asked)


def stop_in_the_dark(stage: Stage, scenario: Scenario, number: int) -> None:
    """`docker stop` of a worker that cannot reach Redis: SIGTERM, ten seconds, SIGKILL."""
    asked = stage.ask_all(stage.clients[:4])
    victim = stage.system.owner(asked[number % 4].reading.rid)
    assert victim is not None and victim.process is not None, "an answer that runs has an owner"
    mine = stage.owned_by(victim, asked)
    victim.proxy.blackhole()
    since = time.monotonic()
    stage.system.send_signal(victim.name, signal.SIGTERM)
    stage.note(scenario, mine, since)
    stage.end(asked)
    try:
        victim.process.wait(max(0.0, since + DOCKER_GRACE_S - time.monotonic()))
    except subprocess.TimeoutExpired:
        stage.system.send_signal(victim.name, signal.SIGKILL)
    victim.proxy.heal()
    stage.restart(victim)


# -- all of them ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Which round belongs to a scenario, and how often it is run."""

    scenario: Scenario
    rounds: int
    run: Callable[[int], None]


def plans(stage: Stage, rounds: int, slow_rounds: int) -> list[Plan]:
    """Everything that is measured, in order."""
    found: list[Plan] = []

    def add(name: str, target_s: float, count: int, run: Callable[[Scenario, int], None]) -> None:
        scenario = Scenario(name, target_s)
        found.append(Plan(scenario, count, lambda number: run(scenario, number)))

    kill, drain = signal.SIGKILL, signal.SIGTERM
    add("worker killed", 5, rounds, lambda s, n: hurt_owner(stage, s, n, kill))
    add("worker drained", 1, rounds, lambda s, n: hurt_owner(stage, s, n, drain))
    add("worker killed, all slots full", 5, slow_rounds, lambda s, n: hurt_owner_under_load(stage, s, n, kill))
    add("worker drained, all slots full", 5, slow_rounds, lambda s, n: hurt_owner_under_load(stage, s, n, drain))
    add("rolling restart, all slots full", 5, slow_rounds, lambda s, n: rolling_restart(stage, s, n))
    for down_s in (0.0, 5.0):
        name = f"Redis killed, down {down_s:g} s"
        newcomer = Scenario(f"{name}: a new question", 5)
        add(name, 5, slow_rounds, lambda s, n, new=newcomer, down_s=down_s: kill_redis(stage, s, new, down_s))
        found.append(Plan(newcomer, 0, lambda number: None))
    add("web process killed", 5, slow_rounds, lambda s, n: kill_web(stage, s, n))
    add("Redis paused 10 s", 5, slow_rounds, lambda s, n: pause_redis(stage, s, 10))
    add("docker stop, Redis unreachable", 5, slow_rounds, lambda s, n: stop_in_the_dark(stage, s, n))
    return found


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[Scenario], list[str]]:
    """All scenarios, and what was violated in the end."""
    defaults = {name: Settings.model_fields[name].default for name in SHORT}
    worker = ("--rate", str(STEPS_PER_S), "--slots", str(SLOTS))
    server = candidates().get(options.server)
    with fault_system(folder, num_workers=NUM_WORKERS, worker_options=worker, binary=server, **defaults) as system:
        stage = Stage(system)
        deadline = time.monotonic() + 60 * options.max_minutes
        everything = plans(stage, options.rounds, options.slow_rounds)
        chosen = [plan for plan in everything if options.only in plan.scenario.name]
        for plan in chosen:
            for number in range(plan.rounds):
                if time.monotonic() < deadline:
                    plan.run(number)
                    plan.scenario.rounds += 1
            print(row(plan.scenario), flush=True)
        for client in stage.clients:
            client.close()
        system.idle()
        return [plan.scenario for plan in chosen], violations(system, stage.clients, lossy=False)


HEAD = f"{'fault':<40}{'rounds':>7}{'readers':>8}{'p50 s':>8}{'p95 s':>8}{'max s':>8}{'target':>8}"


def row(scenario: Scenario) -> str:
    waits = scenario.all_s
    values = (percentile(waits, 50), percentile(waits, 95), max(waits, default=float("nan")))
    verdict = "" if scenario.met else "  MISSED"
    times = "".join(f"{value:>8.2f}" for value in values)
    return f"{scenario.name:<40}{scenario.rounds:>7}{len(waits):>8}{times}{scenario.target_s:>8g}{verdict}"


def main() -> int:
    """Exit code 1 when a target is missed or an invariant is violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=20, help="of a killed and of a drained worker")
    add("--slow-rounds", type=int, default=5, help="of each other fault")
    add("--only", default="", help="a word in the names of the scenarios to run")
    add("--server", choices=["valkey", "redis"], default="valkey", help="the packaged Valkey, or the machine's Redis")
    add("--max-minutes", type=float, default=20, help="begin no round after this")
    add("--out", type=Path, help="folder for recovery.json")
    options = parser.parse_args()
    unwind_on_sigterm()
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-recovery-") as folder:
        scenarios, found = measure(options, Path(folder))
    found += [violation for scenario in scenarios for violation in scenario.violations]
    print("\n" + "\n".join([HEAD, *map(row, scenarios)]))
    print(f"{len(found)} violations", *found, sep="\n  ")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {"rounds": options.rounds, "scenarios": [asdict(s) for s in scenarios], "violations": found}
        (options.out / "recovery.json").write_text(json.dumps(result, indent=2) + "\n")
    return 1 if found or not all(scenario.met for scenario in scenarios) else 0


if __name__ == "__main__":
    sys.exit(main())
