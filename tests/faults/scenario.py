"""One directed scenario over a system that several share: its clients in threads of their own, and its judgement.

    scenario.ask(scenario.tab(), Question("q1", "hello", 80))
    scenario.wait_for_tokens("q1", 20)
    …
    scenario.judge(lossy=False)

`heal` brings the system back to health, so that one failed scenario does not fail the next.
"""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.chat.journal import Head
from services.chat.queue import PendingEntry
from services.chat.requests import Requests
from tests.end_to_end.system import wait_until
from tests.faults.invariants import Client, violations
from tests.faults.programs import KINDS, Program
from tests.faults.system import FaultSystem, Part, fault_system
from tests.faults.tabs import Behaviour, Question, Reading, Tab, Terminal

DEADLINE_S = 25.0
PLAIN, VANISH = Behaviour(), Behaviour(vanish=True)


def soon() -> float:
    """A reader's deadline: bounded, so that a promise that is broken for ever fails a test and does not hang it."""
    return time.monotonic() + DEADLINE_S


class Scenario:
    """Its clients and what it did to the system. For one thread, beside those of its clients."""

    def __init__(self, system: FaultSystem) -> None:
        self.system = system
        self._clients: list[Client] = []
        self._threads = ThreadPoolExecutor(16)

    # -- clients -------------------------------------------------------------------------------------------------

    def tab(self, cookie: str = "") -> Tab:
        """A tab of the first web process (unless that is down)."""
        urls = [part.url for part in self.system.of_kind("web")]
        made = Tab(f"tab-{len(self._clients)}-{time.monotonic_ns()}", urls, cookie=cookie)
        self._clients.append(made)
        return made

    def program(self, kind: str) -> Program:
        """A program of OpenAI's API, of a kind of `programs.KINDS`."""
        urls = [part.url for part in self.system.of_kind("web")]
        made = KINDS[kind](f"{kind}-{len(self._clients)}-{time.monotonic_ns()}", urls)
        self._clients.append(made)
        return made

    def terminal(self, url: str = "") -> Terminal:
        """A terminal; directly to Redis unless it gets the address of a proxy."""
        name = f"terminal-{len(self._clients)}-{time.monotonic_ns()}"
        made = Terminal(name, url or self.system.server.url, self.system.keys)
        self._clients.append(made)
        return made

    def ask(self, client: Client, question: Question, behaviour: Behaviour = PLAIN) -> Future[Reading]:
        """Ask in a thread and read until the end; `reading` is there at once, the result when it ended."""
        asked = self._threads.submit(client.run, question, behaviour, soon())
        wait_until(lambda: client.readings or asked.done(), "the question")
        return asked

    def vanish(self, question: Question) -> Terminal:
        """Ask, and go away once it is accepted: nobody but the workers looks after this request."""
        client = self.terminal()
        assert client.run(question, VANISH, soon()).acknowledged_at is not None, client.readings[0].trace
        return client

    # -- what is so ----------------------------------------------------------------------------------------------

    def head(self, rid: str) -> Head:
        found = self.system.journal.head(rid)
        assert found is not None, f"{rid} is unknown"
        return found

    def begun_by(self, rid: str, begins: int, tokens: int = 0) -> Part:
        """The worker of the begin with this number, once it has journalled so many tokens."""

        def owner() -> Part | None:
            head = self.system.journal.head(rid)
            if head is None or head.begins < begins or head.n < tokens:
                return None
            return self.system.owner(rid)

        found: Part = wait_until(owner, f"begin {begins} of {rid} and {tokens} tokens", DEADLINE_S)
        return found

    def wait_for_tokens(self, rid: str, tokens: int) -> None:
        wait_until(lambda: self._count(rid) >= tokens, f"{tokens} tokens of {rid}", DEADLINE_S)

    def _count(self, rid: str) -> int:
        head = self.system.journal.head(rid)
        return head.n if head is not None else 0

    def end_of(self, rid: str) -> Head:
        """The head of a request, once it has ended; fails after the deadline."""

        def ended() -> Head | None:
            head = self.system.journal.head(rid)
            return head if head is not None and head.ended else None

        found: Head = wait_until(ended, f"the end of {rid}", DEADLINE_S)
        return found

    def pending(self, wid: str) -> PendingEntry:
        """The one delivered entry of a worker."""
        (row,) = self.system.queue.pending(wid)
        return row

    def idle_s(self, wid: str) -> float:
        """How long ago a worker last renewed all that it has."""
        return max(row.idle_s for row in self.system.queue.pending(wid))

    def offset_before_token(self, rid: str, at_least: int) -> int:
        """Where in the file the first append starts that begins with this token or a later one."""
        read = self.system.journal.read(rid)
        assert read is not None
        event = next(event for event in read[1] if event.kind == "tokens" and event.off >= at_least)
        return self.system.aof_offset_before(f"{{{rid}}}:journal".encode(), f'"off":{event.off},'.encode())

    def resume_workers(self) -> None:
        for part in self.system.of_kind("worker"):
            self.system.send_signal(part.name, signal.SIGCONT)

    # -- the end -------------------------------------------------------------------------------------------------

    def judge(self, *, lossy: bool = False) -> None:
        """Everything that must hold after every scenario."""
        for client in self._clients:
            client.close()
        self.system.idle()  # first: what a worker left behind is taken up when its lease is over
        found = violations(self.system, self._clients, lossy=lossy)
        assert not found, "\n".join([*found, *self._traces()])

    def _traces(self) -> Iterator[str]:
        for client in self._clients:
            for reading in client.readings:
                yield f"-- {reading.reader} on {reading.question}"
                yield from reading.trace

    def heal(self) -> None:
        """No fault from now on, everything runs, nobody asks."""
        system = self.system
        system.free_disk()
        wait_until(system.keep_redis, "the start of Redis")
        system.redis.config_set("maxmemory", 0)
        for part in system.parts.values():
            part.proxy.heal()
            system.start_part(part.name)
        self.resume_workers()
        for client in self._clients:
            client.close()
        self._threads.shutdown()
        for part in system.parts.values():
            system.ready(part.name)
        for rid in system.queue.in_flight():  # none, unless the scenario failed
            Requests(system.redis, system.keys).cancel(rid, self.head(rid).user)


@contextmanager
def shared_system(folder: Path, **options: Any) -> Iterator[FaultSystem]:
    """A system whose levels of rest are noted."""
    with fault_system(folder, **options) as system:
        _warm_up(system)
        yield system


def _warm_up(system: FaultSystem) -> None:
    """Every web process has answered several tabs at once, so that its pool and its threads are there."""
    urls = [part.url for part in system.of_kind("web")]
    tabs = [Tab(f"warm-{number}", urls[number % 2 :] + urls[: number % 2]) for number in range(2 * len(urls))]
    with ThreadPoolExecutor(len(tabs) or 1) as threads:
        list(threads.map(lambda tab: tab.run(Question(tab.name, "hello", 5), Behaviour(), soon()), tabs))
    for tab in tabs:
        tab.close()
    system.note_levels()
