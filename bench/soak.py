"""Mixed chat under faults for as long as you like: `python -m bench.soak --minutes 30`. Does anything break or grow?

The clients and the faults of tests/faults/chaos.py at a gentler pace, over three fault workers, two web processes and a
Redis that syncs every write; `--lossy` also lets Redis lose the end of its file now and then. Requests are judged while
the run goes on (tests/faults/invariants.py), once they have ended and nobody reads them; then their readings are
dropped, and their keys deleted, since answers are kept for an hour at least. So the memory of this process and that of
Redis (`used_memory`) must stay as flat as that of the servers.

Memory is sampled every few seconds. Per process name, one slope in MiB/hour is fitted by least squares over the second
half of the run, with an offset of its own for each process that had the name (faults replace them) and without the
first part of its life. It is too much when even the lower end of its 95 % interval, widened for the correlation of
neighbouring samples, is above `--bound`, and it has come to 2 MiB within one process's life: a run of a few minutes
sees mostly starts. The exit code is 1 then, and on any violation.
"""

import argparse
import contextlib
import itertools
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import redis

from bench.system import unwind_on_sigterm
from services.connection.embedded import candidates
from tests.faults.chaos import CALM_S, Episode
from tests.faults.invariants import Judge
from tests.faults.system import FaultSystem, fault_system
from tests.faults.tabs import Reading, Tab, Terminal

LONGEST_CUT = 65_536  # bytes: about the last seconds of writes
JUDGE_EVERY_S = 2.0
FORGOTTEN_S = 2 * CALM_S  # a request that has not ended after this is judged as it is
LOSSES_KEPT = 20
TRACE_LINES = 2_000
NOTABLE_MIB = 2.0  # less is how any young process settles
MIB = 2**20


class RollingJudge:
    """Judges what has ended and drops it, so that a run of hours keeps no more than one of minutes."""

    def __init__(self, system: FaultSystem, clients: list[Tab | Terminal], *, lossy: bool) -> None:
        self._system = system
        self._clients = clients
        self._judge = Judge(system, lossy=lossy)
        self._first_seen: dict[str, float] = {}
        self.num_judged = 0
        self.violations: list[str] = []
        self.traces: list[str] = []  # of the readers of requests with a violation

    def look(self) -> None:
        """One round over all clients. Redis may be away: then the next round does it."""
        with contextlib.suppress(redis.RedisError):
            for client in self._clients:
                for rid, readings in self._old(client).items():
                    if self._over(rid, readings):
                        self._request(rid, readings)
                        self._forget(client, rid)
        del self._system.losses[:-LOSSES_KEPT]

    def _request(self, rid: str, readings: list[Reading]) -> None:
        found = list(self._judge.request(rid, readings))
        self.violations += found
        if found and len(self.traces) < TRACE_LINES:
            for reading in readings:
                self.traces += [f"-- {reading.reader} on {reading.question}", *reading.trace]

    @staticmethod
    def _old(client: Tab | Terminal) -> dict[str, list[Reading]]:
        """Its readings by request, without the request that it is at."""
        readings = list(client.readings)
        by_rid: dict[str, list[Reading]] = {}
        for reading in readings:
            if reading.rid != readings[-1].rid:
                by_rid.setdefault(reading.rid, []).append(reading)
        return by_rid

    def _over(self, rid: str, readings: list[Reading]) -> bool:
        """Whether the request has ended and left the queue, or has had all the time to."""
        since = self._first_seen.setdefault(rid, time.monotonic())
        head = self._system.journal.head(rid)
        never_accepted = head is None and all(reading.acknowledged_at is None for reading in readings)
        ended = never_accepted or (head is not None and head.ended)
        return (ended and not self._system.queue.holds(rid)) or time.monotonic() - since > FORGOTTEN_S

    def _forget(self, client: Tab | Terminal, rid: str) -> None:
        self._system.redis.delete(self._system.keys.state(rid), self._system.keys.journal(rid))
        self._first_seen.pop(rid, None)
        for index in reversed(range(len(client.readings))):  # the client only ever appends
            if client.readings[index].rid == rid:
                del client.readings[index]
        self.num_judged += 1


@dataclass(frozen=True)
class Sample:
    """Resident memory of a process, or what Redis says it uses, `at_s` seconds after the start."""

    name: str
    pid: int
    at_s: float
    mib: float


class Meter:
    """Samples the memory of every process."""

    def __init__(self, system: FaultSystem) -> None:
        self._system = system
        self._start = time.monotonic()
        self.samples: list[Sample] = []

    def look(self) -> None:
        at_s = time.monotonic() - self._start
        pids = {name: part.pid for name, part in self._system.parts.items() if part.alive}
        if self._system.server.running():
            pids["redis"] = self._system.server.pid
        pids["checker"] = psutil.Process().pid
        for name, pid in pids.items():
            with contextlib.suppress(psutil.Error):
                self.samples.append(Sample(name, pid, at_s, psutil.Process(pid).memory_info().rss / MIB))
        with contextlib.suppress(redis.RedisError, KeyError):
            used = self._system.redis.info("memory")["used_memory"] / MIB
            self.samples.append(Sample("redis: used_memory", pids["redis"], at_s, used))


@dataclass(frozen=True)
class Growth:
    """MiB/hour of one process name, with half the width of its 95 % interval; nan: too few samples to tell."""

    name: str
    processes: int
    first_mib: float
    last_mib: float
    highest_mib: float
    slope: float
    plus_minus: float
    grown_mib: float  # what the slope comes to in the longest life that was fitted

    def too_much(self, bound: float) -> bool:
        return self.slope - self.plus_minus > bound and self.grown_mib >= NOTABLE_MIB


def growth(name: str, samples: list[Sample], from_s: float, young_s: float) -> Growth:
    """Of samples of one name, in order of time; those before `from_s` and of a younger process do not count."""
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.pid, []).append(sample)
    grown = [[s for s in life if s.at_s >= max(from_s, life[0].at_s + young_s)] for life in lives.values()]
    fitted = [[(s.at_s / 3600, s.mib) for s in life] for life in grown if len(life) >= 3]
    slope, plus_minus = _fit(fitted)
    grown_mib = slope * max((life[-1][0] - life[0][0] for life in fitted), default=0.0)
    mib = [sample.mib for sample in samples]
    return Growth(name, len(lives), *(round(v, 1) for v in (mib[0], mib[-1], max(mib), slope, plus_minus, grown_mib)))


def _fit(lives: list[list[tuple[float, float]]]) -> tuple[float, float]:
    """One slope through several lines, each with its own offset, and half the width of its 95 % interval."""
    centred = [_centred(life) for life in lives]
    points = [point for life in centred for point in life]
    spread = sum(x * x for x, _ in points)
    freedom = len(points) - len(lives) - 1
    if freedom < 10:
        return math.nan, math.nan
    slope = sum(x * y for x, y in points) / spread
    rests = [[y - slope * x for x, y in life] for life in centred]
    square = sum(rest * rest for life in rests for rest in life)
    neighbours = sum(a * b for life in rests for a, b in itertools.pairwise(life))
    correlation = min(0.95, max(0.0, neighbours / square)) if square else 0.0
    widened = (1 + correlation) / (1 - correlation)
    return slope, 1.96 * math.sqrt(square / freedom / spread * widened)


def _centred(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    return [(x - x_mean, y - y_mean) for x, y in points]


@contextlib.contextmanager
def regularly(action: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call `action` in a thread of its own while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every_s):
            action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def soak(options: argparse.Namespace, folder: Path) -> tuple[Episode, RollingJudge, Meter]:
    """The whole run; `violations` of the judge are complete."""
    with fault_system(folder, num_workers=3, binary=candidates().get(options.server)) as system:
        seconds = 60 * options.minutes
        episode = Episode(
            system,
            seed=options.seed,
            seconds=seconds,
            lossy=options.lossy,
            pace_s=(0.5 * options.pace, 1.5 * options.pace),
            longest_cut=LONGEST_CUT,
        )
        judge, meter = RollingJudge(system, episode.clients, lossy=options.lossy), Meter(system)
        with regularly(meter.look, options.every), regularly(judge.look, JUDGE_EVERY_S):
            judge.violations += episode.storm()
        judge.num_judged += episode.num_requests
        judge.violations += episode.verdict()
    return episode, judge, meter


def growths(meter: Meter, options: argparse.Namespace) -> list[Growth]:
    """Of each process name, over the second half of the run."""
    by_name: dict[str, list[Sample]] = {}
    for sample in meter.samples:
        by_name.setdefault(sample.name, []).append(sample)
    half_s, young_s = 30 * options.minutes, min(60.0, 3 * options.minutes)
    return [growth(name, samples, half_s, young_s) for name, samples in sorted(by_name.items())]


def show(episode: Episode, judge: RollingJudge, found: list[Growth], bound: float) -> None:
    print(f"\n{'memory, MiB':<20}{'processes':>10}{'first':>8}{'last':>8}{'highest':>9}  MiB/hour (95 %)")
    for one in found:
        sizes = f"{one.processes:>10}{one.first_mib:>8}{one.last_mib:>8}{one.highest_mib:>9}"
        slope = "too few samples" if math.isnan(one.slope) else f"{one.slope:+.1f} ± {one.plus_minus:.1f}"
        print(f"{one.name:<20}{sizes}  {slope}{'  TOO MUCH' if one.too_much(bound) else ''}")
    print(f"\n{'fault':<28}{'times':>6}")
    for fault, times in sorted(episode.injected.items()):
        print(f"{fault:<28}{times:>6}")
    print(f"\n{judge.num_judged} requests, {len(judge.violations)} violations", *judge.violations, sep="\n  ")
    if judge.violations:
        print(episode.report(), *judge.traces, sep="\n", file=sys.stderr)


def main() -> int:
    """Exit code 1 on a violation, or when a memory grows faster than the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=30, help="of faults; the warm-up and the calm come on top")
    add("--seed", type=int, default=1, help="of the schedule of faults")
    add("--lossy", action="store_true", help="Redis also loses the end of its file now and then")
    add("--bound", type=float, default=30, help="MiB/hour that a process may grow by")
    add("--pace", type=float, default=10, help="seconds from one fault to the next, in the mean; 3600 for none")
    add("--every", type=float, default=5, help="seconds from one sample of the memory to the next")
    add("--server", choices=["valkey", "redis"], default="valkey", help="the packaged Valkey, or the machine's Redis")
    add("--out", type=Path, help="folder for soak.json")
    options = parser.parse_args()
    unwind_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as folder:
        episode, judge, meter = soak(options, Path(folder))
    found = growths(meter, options)
    show(episode, judge, found, options.bound)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "minutes": options.minutes,
            "requests": judge.num_judged,
            "violations": judge.violations,
            "faults": dict(episode.injected),
            "growth": [{k: None if v != v else v for k, v in asdict(one).items()} for one in found],
            "samples": [asdict(sample) for sample in meter.samples],
        }
        (options.out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    return 1 if judge.violations or any(one.too_much(options.bound) for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
