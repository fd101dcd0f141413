"""A whole system whose every part can be hurt alone: workers and web processes, each behind its own proxy, and Redis.

with fault_system(folder) as system:
    system.send_signal("worker-0", signal.SIGKILL)
    system.start_part("worker-0")
    system.kill_redis(cut=system.aof_offset_before(b'"kind":"finished"'))
    system.idle()
"""

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import psutil

from services.chat.journal import Journal
from services.chat.queue import RequestQueue
from services.connection.embedded import Fsync, free_port
from services.connection.keeper import ServerKeeper
from services.machine.disk import RESERVE_BYTES, Reserve
from tests.end_to_end.system import System, answers, wait_until
from tests.faults.disk import SmallDisk
from tests.faults.proxy import Proxy
from tests.faults.resp import messages
from tests.faults.worker import MODEL

# Short, so that an episode sees many recoveries; targets are measured with the defaults elsewhere. The window is the
# smallest, so that a slow reader is paused within a short answer.
SHORT = {"lease_s": 1.5, "stall_s": 1.0, "drain_s": 2.0, "window_chars": 256}

_MULTI, _EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"


@dataclass
class Part:
    """One process by name (`worker-0`, `web-1`), started and started again with the same options."""

    name: str
    proxy: Proxy
    command: tuple[str, ...]
    settings: dict[str, Any]
    url: str = ""  # of a web process
    process: subprocess.Popen[bytes] | None = None

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass(frozen=True)
class Level:
    """What one process uses: its threads, its sockets other than to Redis, its connections that subscribe."""

    threads: int
    sockets: int
    subscribers: int

    def highest(self, other: "Level") -> "Level":
        """The higher of both in each."""
        return Level(*map(max, astuple(self), astuple(other)))

    def above(self, other: "Level") -> str:
        """What of it is more than in `other`; empty when nothing is."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in ("threads", "sockets", "subscribers"))
        return ", ".join(f"{have} {name} instead of {had}" for name, have, had in pairs if have > had)


@dataclass(frozen=True)
class Loss:
    """Redis was killed at `at` (`time.monotonic()`) and lost these commands, the rest of a cut transaction included."""

    at: float
    commands: tuple[bytes, ...] = ()

    def of(self, rid: str) -> bool:
        """Whether anything about this request was lost."""
        return any(rid.encode() in command for command in self.commands)

    def end_of(self, rid: str) -> bool:
        """Whether the end of this request was lost: those who were told of it cannot be told otherwise."""
        state = f"{{{rid}}}:state".encode()
        return any(state in command and b"ended_ms" in command for command in self.commands)


class FaultSystem(System):
    """Redis, `num_workers` fault workers and `num_webs` web processes; `disk` is that of Redis, mounted already."""

    def __init__(
        self,
        folder: Path,
        *,
        num_workers: int = 3,
        num_webs: int = 2,
        worker_options: tuple[str, ...] = (),
        binary: Path | None = None,
        appendfsync: Fsync = "always",
        disk: SmallDisk | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(folder, "faults", appendfsync=appendfsync, binary=binary, **{**SHORT, **settings})
        self.queue = RequestQueue(self.redis, self.keys, MODEL)
        self.journal = Journal(self.redis, self.keys)
        self.parts: dict[str, Part] = {}
        self.losses: list[Loss] = []
        self.disk = disk
        self.said: list[str] = []  # by the keeper of Redis
        size = RESERVE_BYTES if disk is not None else 0  # the machine's disk is not ours to take room on
        self._keeper = ServerKeeper(self.server, self.said.append, Reserve(self.server.folder / "reserve", size))
        self._levels: dict[str, Level] = {}
        self._client_proxies: list[Proxy] = []
        for number in range(num_workers):
            self._add(f"worker-{number}", ("tests.faults.worker", "--salt", str(number), *worker_options), {})
        for number in range(num_webs):
            port = free_port()
            part = self._add(f"web-{number}", ("webapp",), {"port": port})
            part.url = f"http://127.0.0.1:{port}"

    def _add(self, name: str, command: tuple[str, ...], settings: dict[str, Any]) -> Part:
        part = self.parts[name] = Part(name, self._proxy(), command, settings)
        return part

    def _proxy(self) -> Proxy:
        proxy = Proxy(self.server.url)
        proxy.start()
        return proxy

    def client_proxy(self) -> Proxy:
        """A proxy for a client of the tests that talks to Redis itself."""
        proxy = self._proxy()
        self._client_proxies.append(proxy)
        return proxy

    # -- processes -----------------------------------------------------------------------------------------------

    def of_kind(self, kind: str) -> list[Part]:
        """The parts that are `worker` or `web`."""
        return [part for part in self.parts.values() if part.kind == kind]

    def start_part(self, name: str) -> Part:
        """Start a process that does not run; `ready` waits for it."""
        part = self.parts[name]
        if not part.alive:
            part.process = self.start(*part.command, redis_url=part.proxy.url, **part.settings)
        return part

    def start_all(self) -> None:
        for name in self.parts:
            self.start_part(name)
        for name in self.parts:
            self.ready(name)

    def ready(self, name: str) -> Part:
        """Wait until a started process serves."""
        part = self.parts[name]
        if part.kind == "web":
            wait_until(lambda: answers(f"{part.url}/readyz"), f"{name}'s start", 30)
        else:
            assert part.process is not None
            self.wait_for_worker(part.process)
        return part

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Signal a process if it runs; after SIGKILL it is gone."""
        part = self.parts[name]
        if part.alive and part.process is not None:
            part.process.send_signal(number)
            if number == signal.SIGKILL:
                part.process.wait(10)

    def owner(self, rid: str) -> Part | None:
        """The worker process that began a request last, if it is one that runs."""
        head = self.journal.head(rid)
        pid = next((w.pid for w in self.registry.workers() if head is not None and w.wid == head.wid), None)
        return next((part for part in self.of_kind("worker") if part.alive and part.pid == pid), None)

    # -- Redis ---------------------------------------------------------------------------------------------------

    def kill_redis(self, cut: int | None = None) -> Loss:
        """SIGKILL, the file cut to `cut` bytes if given, and a new start; what was lost."""
        self.server.kill()
        commands: tuple[bytes, ...] = ()
        if cut is not None:
            path = self.aof_path()
            data = path.read_bytes()
            commands = tuple(data[start:end] for start, end in messages(data, _last_whole(data, cut)))
            with path.open("rb+") as file:
                file.truncate(cut)
        loss = Loss(time.monotonic(), commands)
        self.losses.append(loss)
        self.keep_redis()
        return loss

    def keep_redis(self) -> bool:
        """As `chatserver up` does all the time: start Redis again if it has ended. False while its disk has no room."""
        return self._keeper.tend()

    def fill_disk(self, *, reserve_too: bool = False) -> None:
        """Other programs take all room; with `reserve_too` also that which was kept."""
        assert self.disk is not None, "the system has no disk of its own"
        if reserve_too:
            (self.server.folder / "reserve").unlink(missing_ok=True)
        self.disk.fill()

    def free_disk(self) -> None:
        """Room again, if it was taken."""
        if self.disk is not None:
            self.disk.free()

    def pause_redis(self, seconds: float) -> None:
        """Redis stands still for a while, if it runs."""
        if not self.server.running():
            return
        process = psutil.Process(self.server.pid)
        process.suspend()
        time.sleep(seconds)
        process.resume()

    def aof_path(self) -> Path:
        """The file to which Redis appends now."""
        files = (self.server.folder / "appendonlydir").glob("*.incr.aof")
        return max(files, key=lambda path: int(re.findall(r"\d+", path.name)[-1]))

    def aof_size(self) -> int:
        """Bytes that were appended since the last rewrite (each start rewrites)."""
        return self.aof_path().stat().st_size

    def aof_offset_before(self, *needles: bytes) -> int:
        """Where the transaction, or the lone command, starts that is the first to contain all `needles`."""
        data = self.aof_path().read_bytes()
        for start, end in _units(data):
            if all(needle in data[start:end] for needle in needles):
                return start
        raise AssertionError(f"{needles!r} are not in {self.aof_path().name} ({len(data)} bytes)")

    # -- the idle level ------------------------------------------------------------------------------------------

    def level(self, name: str) -> Level:
        """What a process uses now."""
        part = self.parts[name]
        process = psutil.Process(part.pid)
        sockets = [c for c in process.net_connections("tcp") if not c.raddr or c.raddr.port != part.proxy.port]
        mine = [client for client in self.redis.client_list() if client["name"].endswith(f"-{part.pid}")]
        subscribers = sum(int(client["sub"]) + int(client.get("ssub", 0)) > 0 for client in mine)
        return Level(process.num_threads(), len(sockets), subscribers)

    def note_levels(self) -> None:
        """Remember the levels of rest, once all workers listen; of two processes of a kind the higher one counts."""
        wait_until(lambda: all(self.level(part.name).subscribers for part in self.of_kind("worker")), "the listeners")
        self.idle()
        for name, part in self.parts.items():
            now, noted = self.level(name), self._levels.get(part.kind)
            self._levels[part.kind] = now.highest(noted) if noted else now

    def idle(self, timeout_s: float = 20.0) -> None:
        """Wait for the level of rest; fails with what is left over."""
        deadline = time.monotonic() + timeout_s
        while left := self.leftovers():
            assert time.monotonic() < deadline, f"not idle after {timeout_s:g} s: {'; '.join(left)}"
            time.sleep(0.05)

    def leftovers(self) -> list[str]:
        """What is not at rest: queue, pending list, index keys, slots, subscriptions, threads and sockets."""
        found = [f"{row.entry_id} is pending with {row.owner}" for row in self.queue.pending()]
        if length := self.queue.length():
            found.append(f"{length} entries in the queue")
        kept = {self.keys.requests(MODEL).encode(), self.keys.dead(MODEL).encode()}
        keys = [key for key in self.redis.scan_iter(self._slot_pattern(), count=1000) if key not in kept]
        found += [f"key {key!r}" for key in keys if self.redis.ttl(key) == -1]
        found += [f"{worker.wid} runs {worker.running}" for worker in self.registry.workers() if worker.running]
        channels = self.redis.pubsub_channels(f"{self.keys.namespace}:*:events")
        channels += self.redis.execute_command("PUBSUB", "SHARDCHANNELS", f"{self.keys.namespace}:*:events")
        found += [f"a subscription to {channel!r}" for channel in channels]
        return found + self._levels_above()

    def _slot_pattern(self) -> str:
        return self.keys.requests(MODEL).removesuffix("requests") + "*"

    def _levels_above(self) -> list[str]:
        found = []
        for name, part in self.parts.items():
            if part.alive and part.kind in self._levels and (above := self.level(name).above(self._levels[part.kind])):
                found.append(f"{name} has {above}")
        return found

    def close(self) -> None:
        super().close()
        for proxy in (*(part.proxy for part in self.parts.values()), *self._client_proxies):
            proxy.close()


def _units(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each transaction and each command outside of one in an append-only file."""
    transaction: int | None = None
    for start, end in messages(data):
        command = data[start:end]
        if command == _MULTI:
            transaction = start
        elif command == _EXEC and transaction is not None:
            yield transaction, end
            transaction = None
        elif transaction is None:
            yield start, end


def _last_whole(data: bytes, cut: int) -> int:
    """Where the first unit starts that is not whole within `cut` bytes."""
    return max((end for _, end in _units(data) if end <= cut), default=0)


@contextlib.contextmanager
def fault_system(folder: Path, **options: Any) -> Iterator[FaultSystem]:
    """All processes started and ready; their levels of rest are not noted yet."""
    system = FaultSystem(folder, **options)
    try:
        system.start_all()
        yield system
    finally:
        system.close()
