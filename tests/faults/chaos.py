"""One random episode: clients ask without pause while parts of the system die, hang, lose messages and come back.

    episode = Episode(system, seed=3, seconds=45, lossy=True)
    assert episode.run() == [], episode.report()

The schedule of faults is a pure function of the seed (`schedule`); what the operating system makes of it is not, so
`report` tells what was done when. Dead processes are started again after a second, as a service manager would do.
"""

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from tests.faults.invariants import violations
from tests.faults.proxy import Proxy
from tests.faults.system import FaultSystem
from tests.faults.tabs import Behaviour, Question, Tab, Terminal

CALM_S = 60.0  # after the last fault, everything is answered within this time
RESTART_S = 1.0
PAUSE_S = 0.05
RESERVE_GONE = 0.5  # part of the full disks on which nothing was kept for Redis
PACE_S = (0.5, 2.0)  # from one fault to the next
NUM_TABS, NUM_TERMINALS = 5, 3
NUM_COOKIES, CROWD_S = 200, 5.0
FULL_S = 8.0  # that the memory stays full: what was accepted ends meanwhile


@dataclass(frozen=True, order=True)
class Step:
    """At `at_s` seconds of the episode, do `what` to `target`; `amount` is its strength."""

    at_s: float
    what: str
    target: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} {self.what} {self.target} {self.amount:.2f}"


def schedule(
    seed: int,
    seconds: float,
    parts: Sequence[str],
    proxies: Sequence[str],
    *,
    lossy: bool,
    pace_s: tuple[float, float] = PACE_S,
) -> list[Step]:
    """The faults of a seed, in order, with what heals each of those that last."""
    chooser = random.Random(seed)
    workers = [name for name in parts if name.startswith("worker")]
    webs = [name for name in parts if name.startswith("web")]
    readers = [name for name in proxies if name not in workers]
    steps = [
        Step(chooser.uniform(0.2, 0.8) * seconds, "order", "poison"),
        Step(chooser.uniform(0.2, 0.8) * seconds, "crowd", amount=NUM_COOKIES),
        Step(chooser.uniform(0.2, 0.8) * seconds, "fill memory"),
    ]
    steps.append(Step(steps[-1].at_s + FULL_S, "free memory"))
    at_s = 1.0
    while at_s < seconds:
        fault = chooser.choice(_FAULTS)
        lasting_s = chooser.uniform(0.5, 3.0) * _LENGTHS.get(fault, 1)
        if fault in ("kill worker", "drain worker", "stop worker"):
            steps.append(Step(at_s, fault, chooser.choice(workers)))
        elif fault == "kill web":
            steps.append(Step(at_s, fault, chooser.choice(webs)))
        elif fault == "kill redis":
            steps.append(Step(at_s, fault, amount=chooser.uniform(0, 1 / 3) if lossy and chooser.random() < 0.7 else 0))
        elif fault == "pause redis":
            steps.append(Step(at_s, fault, amount=chooser.uniform(1, 3)))
        elif fault == "fill disk":
            steps.append(Step(at_s, fault, amount=chooser.uniform(0, 1)))
        elif fault == "order":
            order = chooser.choice(("hang", "die", "raise", "oom"))
            steps.append(Step(at_s, fault, f"{order}@{chooser.randint(1, 15)}"))
        else:
            strength = {"delay": chooser.uniform(0.02, 0.2), "drop pushes": chooser.uniform(0.1, 1)}
            targets = readers if fault == "drop pushes" else proxies
            steps.append(Step(at_s, fault, chooser.choice(targets), strength.get(fault, 0.0)))
        if fault in _HEALERS:
            steps.append(Step(at_s + lasting_s, _HEALERS[fault], steps[-1].target))
        at_s += chooser.uniform(*pace_s)
    return sorted(steps)


_FAULTS = (
    *("kill worker", "drain worker", "stop worker", "order", "order"),
    *("kill web", "kill redis", "pause redis", "fill disk"),
    *("delay", "reset", "blackhole", "drop pushes", "drop pushes"),
)
_HEALERS = {
    "stop worker": "continue worker",
    "delay": "end of delay",
    "blackhole": "end of blackhole",
    "drop pushes": "end of drops",
    "fill memory": "free memory",
    "fill disk": "free disk",
}
_LENGTHS = {"stop worker": 1.5, "drop pushes": 3}  # longer than a lease; long enough to meet the end of an answer


class Episode:
    """One run over a fresh system. `run` returns what was violated; a lossy kill cuts at most `longest_cut` bytes."""

    def __init__(
        self,
        system: FaultSystem,
        *,
        seed: int,
        seconds: float,
        lossy: bool,
        pace_s: tuple[float, float] = PACE_S,
        longest_cut: int = 2**62,
    ) -> None:
        self._system = system
        self._seed = seed
        self._seconds = seconds
        self._lossy = lossy
        self._pace_s = pace_s
        self._longest_cut = longest_cut
        self._random = random.Random(seed)  # of faults that need chance while they last
        self._proxies = {part.name: part.proxy for part in system.parts.values()}
        self._calm = threading.Event()
        self._orders: list[str] = []
        self._dead_since: dict[str, float] = {}
        self._log: list[str] = []
        self.injected: Counter[str] = Counter()
        self.clients: list[Tab | Terminal] = [*self._tabs(), *self._terminals()]

    def _tabs(self) -> list[Tab]:
        urls = [part.url for part in self._system.of_kind("web")]
        return [Tab(f"tab-{number}", urls[number % 2 :] + urls[: number % 2]) for number in range(NUM_TABS)]

    def _terminals(self) -> list[Terminal]:
        made = []
        for number in range(NUM_TERMINALS):
            name = f"terminal-{number}"
            self._proxies[name] = self._system.client_proxy()
            made.append(Terminal(name, self._proxies[name].url, self._system.keys))
        return made

    def run(self) -> list[str]:
        """Warm up, do harm, calm down, judge."""
        return [*self.storm(), *self.verdict()]

    def storm(self) -> list[str]:
        """Warm up, do harm, calm down; which clients never came to an end."""
        self._warm_up()
        start = time.monotonic()
        deadline = start + self._seconds + CALM_S
        threads = [threading.Thread(target=self._ask, args=(client, deadline), daemon=True) for client in self.clients]
        for thread in threads:
            thread.start()
        for step in schedule(
            self._seed,
            self._seconds,
            list(self._system.parts),
            list(self._proxies),
            lossy=self._lossy,
            pace_s=self._pace_s,
        ):
            self._wait(lambda step=step: time.monotonic() >= start + step.at_s)
            self._say(start, str(step))
            self._count(step)
            self._do(step)
        self._calm_down(start)
        self._wait(lambda: not any(thread.is_alive() for thread in threads) or time.monotonic() > deadline + 10)
        self._say(start, "all clients are done")
        found = [f"{thread.name} still waits" for thread in threads if thread.is_alive()]
        for client in self.clients:
            client.close()
        return found

    def verdict(self) -> list[str]:
        """What does not hold once everything has calmed down, of all readings that the clients still keep."""
        return [*self._not_idle(), *violations(self._system, self.clients, lossy=self._lossy)]

    def report(self) -> str:
        """What was done, and what the readers with a complaint saw last."""
        lines = [f"seed {self._seed}, {self._seconds:g} s, lossy {self._lossy}", *self._log]
        for client in self.clients:
            for reading in client.readings:
                if reading.breaches or reading.rewinds or not (reading.done or reading.left):
                    lines += [f"-- {reading.reader} on {reading.question}", *reading.trace]
        return "\n".join(lines)

    @property
    def num_requests(self) -> int:
        return len({reading.rid for client in self.clients for reading in client.readings})

    def latest_s(self) -> float:
        """The longest time after which a reader was told of an end that the journal had."""
        return max((reading.late_s for client in self.clients for reading in client.readings), default=0.0)

    def _count(self, step: Step) -> None:
        if step.what not in _HEALERS.values() and not (step.what == "fill disk" and self._system.disk is None):
            name = f"{step.target.partition('@')[0]} request" if step.what == "order" else step.what
            cut = self._lossy and step.what == "kill redis" and step.amount
            self.injected[f"{name}, file cut" if cut else name] += 1

    # -- the clients' threads ------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Every client asks once, so that pools and threads are there when the levels of rest are noted."""
        deadline = time.monotonic() + 30
        for client in self.clients:
            client.run(Question(f"{client.name}-first", "hello", 5), Behaviour(), deadline)
            client.close()
        self._system.note_levels()

    def _ask(self, client: Tab | Terminal, deadline: float) -> None:
        chooser = random.Random(f"{self._seed}-{client.name}")
        number = 0
        while not self._calm.is_set():
            number += 1
            question = Question(f"{client.name}-{number:04d}", "hello", chooser.randint(20, 150))
            behaviour = _habit(chooser)
            if self._orders:
                question = Question(question.rid, self._orders.pop(0), question.max_new_tokens)
                behaviour = Behaviour()
            client.run(question, behaviour, deadline)

    # -- the faults ----------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        system, proxy = self._system, self._proxies.get(step.target)
        kill = {"kill worker": signal.SIGKILL, "kill web": signal.SIGKILL, "drain worker": signal.SIGTERM}
        kill |= {"stop worker": signal.SIGSTOP, "continue worker": signal.SIGCONT}
        if step.what in kill:
            system.send_signal(step.target, kill[step.what])
        elif step.what == "order":
            self._orders.append(step.target)
        elif step.what == "kill redis":
            size = system.aof_size()
            cut = min(int(size * step.amount), self._longest_cut)
            system.kill_redis(size - cut if cut else None)
        elif step.what == "pause redis":
            system.pause_redis(step.amount)
        elif step.what in ("fill memory", "free memory"):
            self._limit_memory(full=step.what == "fill memory")
        elif step.what == "crowd":
            threading.Thread(target=self._crowd, args=(int(step.amount),), daemon=True).start()
        elif step.what == "fill disk" and system.disk is not None:
            system.fill_disk(reserve_too=step.amount < RESERVE_GONE)
        elif step.what == "free disk":
            system.free_disk()
        elif proxy is not None:
            self._hurt(proxy, step)

    def _limit_memory(self, *, full: bool) -> None:
        """More is in use than allowed, or there is no limit. A server that was killed comes back without a limit."""
        client = self._system.redis
        with contextlib.suppress(redis.RedisError):
            client.config_set("maxmemory", client.info("memory")["used_memory"] // 2 if full else 0)

    def _crowd(self, size: int) -> None:
        """Users of one address ask one short question each and go away."""
        for number in range(size):
            if self._calm.is_set():
                return
            terminal = Terminal(f"crowd-{number}", self._system.server.url, self._system.keys, address="1.2.3.4")
            self.clients.append(terminal)
            terminal.run(Question(f"crowd-{number}", "hello", 3), Behaviour(vanish=True), time.monotonic() + CROWD_S)
            terminal.close()

    def _hurt(self, proxy: Proxy, step: Step) -> None:
        actions: dict[str, Callable[[], object]] = {
            "delay": lambda: proxy.delay(step.amount),
            "end of delay": lambda: proxy.delay(0),
            "reset": proxy.reset,
            "blackhole": proxy.blackhole,
            "end of blackhole": proxy.restore,
            "drop pushes": lambda: proxy.drop_pushes(step.amount, self._random),
            "end of drops": lambda: proxy.drop_pushes(0),
        }
        actions[step.what]()

    def _calm_down(self, start: float) -> None:
        """No fault from now on, and no new question."""
        self._say(start, "calm")
        self._limit_memory(full=False)
        self._system.free_disk()
        for proxy in self._proxies.values():
            proxy.heal()
        for part in self._system.of_kind("worker"):
            self._system.send_signal(part.name, signal.SIGCONT)
        self._calm.set()

    def _wait(self, condition: Callable[[], bool]) -> None:
        """Until the condition is true; whatever has died comes back meanwhile."""
        while not condition():
            now = time.monotonic()
            self._system.keep_redis()
            for part in self._system.parts.values():
                since = self._dead_since.setdefault(part.name, now)
                if part.alive:
                    del self._dead_since[part.name]
                elif now - since >= RESTART_S:
                    self._system.start_part(part.name)
            time.sleep(PAUSE_S)

    def _not_idle(self) -> list[str]:
        try:
            self._system.idle()
        except AssertionError as error:
            return [str(error)]
        return []

    def _say(self, start: float, what: str) -> None:
        self._log.append(f"{time.monotonic():.3f} [{time.monotonic() - start:6.2f}] {what}")


def _habit(chooser: random.Random) -> Behaviour:
    """Mostly plain reading; each oddity now and then."""
    habits = (
        Behaviour(slow_s=chooser.uniform(0.1, 0.5)),
        Behaviour(second_tab=True),
        Behaviour(second_tab=True, moves_after=chooser.randint(0, 150)),
        Behaviour(vanish=True),
        Behaviour(cancel_after=chooser.randint(0, 150)),
        Behaviour(twice=True),
    )
    return chooser.choice((*habits, *[Behaviour()] * 5))
