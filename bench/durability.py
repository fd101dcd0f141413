"""`appendfsync always` against `everysec`, in turns: what each costs and what each loses. `python -m bench.durability`

Cost: the rounds of bench/relay.py over the whole path, a burst of submissions (create and enqueue from 16 threads), and
the append step of a worker alone (one pipeline for all its streams).

Loss: clients submit, a writer appends tokens for 16 streams, a reader notes what is published; then Redis is killed.
SIGKILL alone leaves the page cache. A power cut also takes what was not synced: `strace` notes every write to the
append-only file and every fdatasync, and after the kill the file is cut to what had been written when the last
finished fdatasync began. (WAITAOF is no witness: under `everysec` Valkey 9.1 answers it before any fdatasync.) Nothing
repairs afterwards, so the numbers are what Redis itself lost; docs/reliability.md says what the system makes of it.
Without strace (Debian: `apt install strace`) no power is cut.

The exit code is 1 when `always` lost anything, or when a stream of the relay did.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import redis

from bench import relay
from bench.system import percentile, unwind_on_sigterm, wait_until
from services.chat.queue import Limits
from services.chat.requests import Requests
from services.connection.connect import connect
from services.connection.embedded import Fsync, candidates
from services.wire.messages import ChatRequest, Event, Message
from tests.faults.system import FaultSystem
from tests.faults.worker import MODEL

MODES: tuple[Fsync, ...] = ("always", "everysec")
NUM_SUBMITTERS, SUBMIT_S = 4, 0.01
NUM_STREAMS, STEP_S = 16, 0.05
BURST_THREADS = 16
NONCE = "bench"


@contextmanager
def lone_redis(mode: Fsync) -> Iterator[FaultSystem]:
    """A Redis without workers and web processes; its model is known."""
    with tempfile.TemporaryDirectory(prefix="bench-durability-") as folder:
        binary = candidates().get("valkey")
        system = FaultSystem(Path(folder), num_workers=0, num_webs=0, appendfsync=mode, binary=binary)
        try:
            system.redis.sadd(system.keys.models, MODEL)
            yield system
        finally:
            system.close()


def _request(rid: str) -> ChatRequest:
    return ChatRequest(rid, "bench", MODEL, (Message("user", "How long does a write take?"),))


def _requests(system: FaultSystem, client: redis.Redis) -> Requests:
    return Requests(client, system.keys, limits=Limits(requests=10**6, user_requests=10**6))


class Streams:
    """A worker's side: requests that it has begun, and the append of one token to each in one pipeline."""

    def __init__(self, system: FaultSystem, count: int) -> None:
        self._journal, self._redis = system.journal, system.redis
        self.rids = [f"stream-{number}" for number in range(count)]
        self._position = 0
        for rid in self.rids:
            request = _request(rid)
            self._journal.begin(
                request,
                request.encode(),
                epoch=1,
                nonce=NONCE,
                wid="bench",
                max_tries=3,
                max_begins=20,
                deadline_ms=10**9,
            )
        self._journal.load_append()

    def step(self) -> None:
        event = Event("tokens", NONCE, self._position, self._position, (7,), "x")
        with self._redis.pipeline(transaction=False) as pipeline:
            for rid in self.rids:
                pipeline.execute_command(*self._journal.append_command(rid, 1, event))
            pipeline.execute()
        self._position += 1


# -- what it costs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Without processes of ours: milliseconds, and submissions per second."""

    mode: str
    submits_per_s: float
    submit_p50_ms: float
    submit_p95_ms: float
    step_16_p50_ms: float
    step_16_p95_ms: float
    step_64_p50_ms: float
    step_64_p95_ms: float


def cost(mode: Fsync, submits: int, steps: int) -> Cost:
    with lone_redis(mode) as system:
        per_s, times = _burst(system, submits)
        steps_ms = {count: _step_times(system, count, steps) for count in (16, 64)}
    values = [value for ms in (times, steps_ms[16], steps_ms[64]) for value in (percentile(ms, 50), percentile(ms, 95))]
    return Cost(mode, round(per_s, 1), *(round(value, 2) for value in values))


def _burst(system: FaultSystem, submits: int) -> tuple[float, list[float]]:
    """Submissions per second of all threads, and the milliseconds of each."""
    times_ms: list[float] = []
    each = submits // BURST_THREADS

    def submit(name: int) -> None:
        for number in range(each):
            start = time.perf_counter()
            requests.submit(_request(f"burst-{name}-{number}"))
            times_ms.append(1000 * (time.perf_counter() - start))

    with closing(connect(system.server.url, role="test")) as client:
        requests = _requests(system, client)
        requests.submit(_request("first"))  # the scripts are loaded now
        threads = [threading.Thread(target=submit, args=(name,)) for name in range(BURST_THREADS)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_s = time.perf_counter() - start
    return len(times_ms) / elapsed_s, times_ms


def _step_times(system: FaultSystem, count: int, steps: int) -> list[float]:
    """Milliseconds of each step."""
    streams, times_ms = Streams(system, count), []
    for _ in range(steps):
        start = time.perf_counter()
        streams.step()
        times_ms.append(1000 * (time.perf_counter() - start))
    return times_ms


def relay_rounds(mode: Fsync, options: argparse.Namespace) -> list[relay.Round]:
    """The whole path, as bench/relay.py measures it."""
    relay_options = argparse.Namespace(
        streams=options.streams,
        rate=10,
        phases=1,
        seconds=options.seconds,
        ramp_ms=8,
        limit_ms=float("inf"),
        idle=1,
        appendfsync=mode,
        max_minutes=4,
    )
    print(f"\nappendfsync {mode}", end="")
    with tempfile.TemporaryDirectory(prefix="bench-durability-") as folder:
        return relay.measure(relay_options, Path(folder))[0]


# -- what it loses -------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """What clients and readers were told until Redis died."""

    accepted: list[str] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)  # the length that a reader has of each answer


@dataclass
class Loss:
    """One kill. `unsynced_ms`: how long the oldest byte that was cut had been written."""

    mode: str
    how: str
    accepted: int
    forgotten: int
    shown: int
    taken_back: int
    cut_bytes: int
    unsynced_ms: float


class SyncTrace:
    """`strace` on the server: what it writes to the append-only file, and what of that is on the disk."""

    def __init__(self, system: FaultSystem) -> None:
        self._start_bytes = system.aof_size()
        self._path = system.folder / "strace.log"
        self._process = subprocess.Popen(
            [
                *("strace", "-f", "-ttt", "-s", "0", "-e", "trace=write,fdatasync", "-P", str(system.aof_path())),
                *("-o", str(self._path), "-p", str(system.server.pid)),
            ],
            stderr=subprocess.DEVNULL,
        )
        traced = f"/proc/{system.server.pid}/status"
        wait_until(lambda: "TracerPid:\t0" not in Path(traced).read_text(), "strace's start", 10)

    def read(self) -> tuple[int, float]:
        """Once the server is dead: bytes that are safe, and for how long the oldest other byte had been written, ms."""
        self._process.wait(10)
        return synced(self._path.read_text().splitlines(), self._start_bytes)


def synced(trace: Iterable[str], start_bytes: int) -> tuple[int, float]:
    """Of a file that had `start_bytes` when the trace began: the bytes on the disk at its end, and the age of the rest.

    The age, in milliseconds, is that of the oldest byte that is not on the disk; 0 when there is none.
    """
    writes: list[tuple[float, int]] = []  # when, and the size of the file after it
    size = safe = start_bytes
    began: dict[str, int] = {}  # by thread: the size when its fdatasync began
    at_s = 0.0
    for thread, at, call in (line.split(None, 2) for line in trace):
        at_s, result = float(at), re.search(r"= (\d+)$", call)
        if "fdatasync" in call:
            began.setdefault(thread, size)
            if result:
                safe = max(safe, began.pop(thread))
        elif "write" in call and result:
            size += int(result[1])
            writes.append((at_s, size))
    oldest = next((when for when, after in writes if after > safe), at_s)
    return safe, 1000 * (at_s - oldest)


class Traffic:
    """Submitters, a writer and a reader, each in a thread that ends with Redis, at the latest at `stop`."""

    def __init__(self, system: FaultSystem) -> None:
        self.told = Told()
        self._system = system
        self._streams = Streams(system, NUM_STREAMS)
        self._stop = threading.Event()
        jobs = [(self._submit, number) for number in range(NUM_SUBMITTERS)]
        jobs += [(self._write, 0), (self._read, 0)]
        self._threads = [threading.Thread(target=self._until_gone, args=job, daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Nobody begins anything from now on: a client would connect to the new Redis."""
        self._stop.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(15)

    def _until_gone(self, run: Callable[[int, threading.Event], None], number: int) -> None:
        try:
            run(number, self._stop)
        except redis.RedisError:
            return  # Redis was killed: so it ends

    def _submit(self, number: int, stop: threading.Event) -> None:
        with closing(connect(self._system.server.url, role="test")) as client:
            requests = _requests(self._system, client)
            count = 0
            while not stop.wait(SUBMIT_S):
                rid = f"asked-{number}-{count}"
                requests.submit(_request(rid))
                self.told.accepted.append(rid)
                count += 1

    def _write(self, _: int, stop: threading.Event) -> None:
        while not stop.wait(STEP_S):
            self._streams.step()

    def _read(self, _: int, stop: threading.Event) -> None:
        with closing(connect(self._system.server.url, role="test")) as client, closing(client.pubsub()) as pubsub:
            channels = {self._system.keys.events(rid): rid for rid in self._streams.rids}
            pubsub.subscribe(*channels)
            while not stop.is_set():
                message = pubsub.get_message(timeout=0.5)
                if message and message["type"] == "message":
                    event = Event.decode(message["data"])
                    self.told.shown[channels[message["channel"].decode()]] = event.toff + len(event.text)


def lose(mode: Fsync, how: str, seconds: float) -> Loss:
    """Run the traffic, kill Redis, start it again, and compare with what was told."""
    with lone_redis(mode) as system:
        trace = SyncTrace(system) if how == "power cut" else None
        traffic = Traffic(system)
        wait_until(lambda: traffic.told.shown, "the first token", 10)
        threading.Event().wait(seconds)
        traffic.stop()
        system.server.kill()
        traffic.join()
        size = system.aof_size()
        safe, unsynced_ms = trace.read() if trace else (size, 0.0)
        system.kill_redis(safe)
        told = traffic.told
        gone = [rid for rid in told.accepted if system.journal.head(rid) is None or not system.queue.holds(rid)]
        kept = {rid: head.toff if (head := system.journal.head(rid)) else 0 for rid in told.shown}
        back = sum(max(0, length - kept[rid]) for rid, length in told.shown.items())
        shown = sum(told.shown.values())
        return Loss(mode, how, len(told.accepted), len(gone), shown, back, size - safe, round(unsynced_ms, 1))


# -- the tables ----------------------------------------------------------------------------------------------------


def show_relay(rounds: list[tuple[str, relay.Round]]) -> None:
    print(f"\n{'whole path':<12}{'streams':>8}{'p50 ms':>8}{'p95 ms':>8}{'lost':>6}{'Redis CPU %':>13}")
    for mode, r in rounds:
        cpu = r.processes["valkey"]["cpu_percent"]
        print(f"{mode:<12}{r.streams:>8}{r.delay_p50_ms:>8}{r.delay_p95_ms:>8}{r.lost:>6}{cpu:>13}")


def show_costs(costs: list[Cost]) -> None:
    print(f"\n{'alone':<12}{'submits/s':>10}{'p50 ms':>8}{'p95 ms':>8}{'16 streams ms':>16}{'64 streams ms':>16}")
    for c in costs:
        steps = (f"{c.step_16_p50_ms:.2f} / {c.step_16_p95_ms:.2f}", f"{c.step_64_p50_ms:.2f} / {c.step_64_p95_ms:.2f}")
        print(f"{c.mode:<12}{c.submits_per_s:>10}{c.submit_p50_ms:>8}{c.submit_p95_ms:>8}{steps[0]:>16}{steps[1]:>16}")


def show_losses(losses: list[Loss]) -> None:
    """One row per setting and kind of death, summed; in brackets the worst single one."""
    counts = f"{'accepted':>10}{'forgotten':>12}{'shown':>8}{'taken back':>13}{'unsynced ms':>13}"
    print(f"\n{'loss':<10}{'how':<12}{'times':>6}{counts}")
    for mode, how in dict.fromkeys((one.mode, one.how) for one in losses):
        some = [one for one in losses if (one.mode, one.how) == (mode, how)]
        accepted, shown = sum(one.accepted for one in some), sum(one.shown for one in some)
        forgotten = f"{sum(one.forgotten for one in some)} ({max(one.forgotten for one in some)})"
        back = f"{sum(one.taken_back for one in some)} ({max(one.taken_back for one in some)})"
        oldest = max(one.unsynced_ms for one in some)
        print(f"{mode:<10}{how:<12}{len(some):>6}{accepted:>10}{forgotten:>12}{shown:>8}{back:>13}{oldest:>13}")


def main() -> int:
    """Exit code 1 when `always` lost something, or the relay did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--turns", type=int, default=2, help="how often each is measured, one after the other")
    add("--streams", type=int, nargs="+", default=[500, 1000], help="of the rounds over the whole path")
    add("--seconds", type=float, default=8, help="of each such round")
    add("--submits", type=int, default=3200, help="of a burst")
    add("--steps", type=int, default=500, help="append steps, for 16 and for 64 streams")
    add("--kills", type=int, default=5, help="of each kind, for each setting")
    add("--out", type=Path, help="folder for durability.json")
    options = parser.parse_args()
    unwind_on_sigterm()
    turns = [mode for _ in range(options.turns) for mode in MODES]
    costs = [cost(mode, options.submits, options.steps) for mode in turns]
    show_costs(costs)
    seconds = random.Random(1)
    kinds = ["kill -9", "power cut"]
    if shutil.which("strace") is None:
        print("\nno power is cut: strace is not installed")
        kinds.remove("power cut")
    kills = [(mode, how) for how in kinds for _ in range(options.kills) for mode in MODES]
    losses = [lose(mode, how, seconds.uniform(2, 4)) for mode, how in kills]
    show_losses(losses)
    rounds = [(mode, one) for mode in turns for one in relay_rounds(mode, options)]
    show_relay(rounds)
    show_costs(costs)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "relay": [{"mode": mode, **asdict(one)} for mode, one in rounds],
            "costs": [asdict(one) for one in costs],
            "losses": [asdict(one) for one in losses],
        }
        (options.out / "durability.json").write_text(json.dumps(result, indent=2) + "\n")
    broken = any(one.forgotten or one.taken_back for one in losses if one.mode == "always")
    return 1 if broken or any(one.lost for _, one in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
