"""The path without a model: `python -m bench.relay`. How many streams does one web process carry on this machine?

An engine that costs nothing emits at a set rate into the real path: worker → journal and pub/sub of a real Redis →
web process → WebSocket. A token's delay is the time from its emission in the engine to its receipt in the client
(all processes share the monotonic clock). Each round runs more streams, until the 95th percentile passes the limit.
Every client's text must equal what it asked the engine to say, or the bench fails.
"""

import argparse
import dataclasses
import json
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.load_client import Answer, Fleet
from bench.system import BenchSystem, CpuMeter, percentile

MODEL = "echo"
RAMP_IN_FLIGHT = 32
RAMP_TIMEOUT_S = 60.0
LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,éü漢字𝄞"


@dataclass(frozen=True)
class Round:
    """One number of streams. Delays are those of the tokens emitted while all streams ran."""

    streams: int
    tokens_per_s: float  # received by all clients, in the window
    rate_reached: float  # of what the engine was asked to emit
    tokens_per_event: float  # above 1 the relay has coalesced: somebody was late
    delay_p50_ms: float
    delay_p95_ms: float
    delay_p99_ms: float
    delay_max_ms: float
    submits_per_s: float
    lost: int  # clients whose text is not what was sent
    processes: dict[str, dict[str, float]]

    @property
    def cpu_us_per_token(self) -> float:
        cores = sum(process["cpu_percent"] for process in self.processes.values()) / 100
        return 1e6 * cores / self.tokens_per_s if self.tokens_per_s else 0.0


def run_round(system: BenchSystem, fleet: Fleet, streams: int, options: argparse.Namespace, emitted: Path) -> Round:
    """Start the streams, let all of them run for the window, wait for their ends, compare."""
    clients = fleet.clients
    fleet.connect(max(0, streams - len(clients)))
    clients = fleet.clients[:streams]
    generator = random.Random(streams)
    length = round(options.rate * (options.seconds + streams * options.ramp_ms / 1000 + 1))
    said = {uuid.uuid4().hex: "".join(generator.choices(LETTERS, k=length)).strip() + "." for _ in clients}
    started_at = time.monotonic()
    answers: list[Answer] = []
    for client, (rid, text) in zip(clients, said.items(), strict=True):
        fleet.run(lambda: sum(not a.acked_at for a in answers[-200:]) < RAMP_IN_FLIGHT, RAMP_TIMEOUT_S)
        answers.append(client.submit(rid, MODEL, text, max_new_tokens=len(text)))
    if not fleet.run(lambda: all(a.arrivals or a.done for a in answers), RAMP_TIMEOUT_S):
        raise TimeoutError(f"not all of {streams} streams began within {RAMP_TIMEOUT_S:.0f} s")
    begun_at = time.monotonic()
    roles: dict[str, psutil.Process] = {role: system.process(role) for role in ("valkey", "worker", "web")}
    meter = CpuMeter({**roles, "clients": psutil.Process()})
    fleet.run(lambda: False, options.seconds)
    processes = meter.read()
    window = (begun_at, time.monotonic())
    if not fleet.run(lambda: all(answer.done for answer in answers), 3 * length / options.rate):
        unfinished = sum(not answer.done for answer in answers)
        print(f"  {unfinished} streams did not end in time", file=sys.stderr)
    lost = [answer for answer in answers if answer.problems or answer.text != said[answer.rid]]
    for answer in lost[:5]:
        print(f"  LOST {answer.rid}: {answer.length} characters, {answer.problems}, {answer.done}", file=sys.stderr)
    delays = _delays(answers, emitted, window)
    num_emitted = streams * options.rate * options.seconds
    return Round(
        streams=streams,
        tokens_per_s=round(len(delays) / options.seconds, 1),
        rate_reached=round(len(delays) / num_emitted, 3),
        tokens_per_event=round(sum(a.length for a in answers) / max(1, sum(len(a.arrivals) for a in answers)), 2),
        delay_p50_ms=round(percentile(delays, 50), 1),
        delay_p95_ms=round(percentile(delays, 95), 1),
        delay_p99_ms=round(percentile(delays, 99), 1),
        delay_max_ms=round(max(delays, default=float("nan")), 1),
        submits_per_s=round(streams / (begun_at - started_at), 1),
        lost=len(lost),
        processes=processes,
    )


def _delays(answers: Iterable[Answer], emitted: Path, window: tuple[float, float]) -> list[float]:
    """Milliseconds from emission to receipt of each token that was emitted in the window."""
    lines = map(json.loads, emitted.read_text().splitlines())
    times = {line["id"]: line["emitted"] for line in lines}
    delays: list[float] = []
    for answer in answers:
        emissions, token = times.get(answer.rid, []), 0
        for length, received_at in answer.arrivals:
            for emitted_at in emissions[token:length]:
                if window[0] <= emitted_at < window[1]:
                    delays.append(1000 * (received_at - emitted_at))
            token = length
    return delays


def idle_client_bytes(system: BenchSystem, fleet: Fleet, count: int) -> float:
    """What the web process grows by per connected client that does nothing."""
    web = system.process("web")
    fleet.connect(20)  # whatever is made once is made now
    fleet.run(lambda: False, 1.0)
    before = web.memory_info().rss
    fleet.connect(count)
    fleet.run(lambda: False, 2.0)
    return (web.memory_info().rss - before) / count


def show(rounds: list[Round], idle_bytes: float) -> None:
    columns = ("streams", "tokens/s", "rate", "per event", "p50 ms", "p95 ms", "p99 ms", "max ms", "lost", "µs/token")
    print(f"\nidle client: {idle_bytes / 1024:.1f} KiB of the web process")
    print("".join(f"{column:>10}" for column in columns), "  CPU % of a core, RSS MiB")
    for r in rounds:
        delays = (r.delay_p50_ms, r.delay_p95_ms, r.delay_p99_ms, r.delay_max_ms)
        values = (r.streams, r.tokens_per_s, f"{r.rate_reached:.1%}", r.tokens_per_event, *delays, r.lost)
        usage = (f"{name} {p['cpu_percent']:.0f}% {p['rss_mib']:.0f}" for name, p in r.processes.items())
        print("".join(f"{value:>10}" for value in (*values, round(r.cpu_us_per_token))), "  " + ", ".join(usage))
    sys.stdout.flush()


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[Round], float]:
    emitted = folder / "emitted.jsonl"
    deadline = time.monotonic() + options.max_minutes * 60
    most = max(options.streams)
    with BenchSystem(folder, appendfsync=options.appendfsync, max_queue=2 * most, max_user_requests=2 * most) as system:
        worker = ["tests.stand_ins.synthetic_worker", "--model", MODEL, "--rate", str(options.rate), "--chunk", "1"]
        worker += ["--slots", str(most), "--phases", str(options.phases), "--emitted", str(emitted)]
        system.start_worker(*worker)
        url = system.start_web()
        fleet = Fleet(url)
        rounds: list[Round] = []
        try:
            idle_bytes = idle_client_bytes(system, fleet, options.idle)
            for streams in sorted(options.streams):
                rounds.append(run_round(system, fleet, streams, options, emitted))
                show(rounds[-1:], idle_bytes)
                if rounds[-1].delay_p95_ms > options.limit_ms or time.monotonic() > deadline:
                    break
        finally:
            fleet.close()
    return rounds, idle_bytes


def main() -> int:
    """Exit code 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--streams", type=int, nargs="+", default=[250, 500, 750, 1000, 1250, 1500], help="streams of each round")
    add("--rate", type=float, default=10, help="tokens per second of each stream")
    add("--phases", type=int, default=1, help="1: all streams step at once; 4: as with four engines")
    add("--seconds", type=float, default=8, help="how long all streams of a round run together")
    add("--ramp-ms", type=float, default=8, help="allowed per stream for its submission")
    add("--limit-ms", type=float, default=100, help="stop after the round whose 95th percentile passes this")
    add("--idle", type=int, default=500, help="idle clients, for the memory of one")
    add("--appendfsync", choices=["always", "everysec", "no"], default="always", help="of the Redis server")
    add("--max-minutes", type=float, default=4, help="begin no round after this")
    add("--out", type=Path, help="folder for relay.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-relay-") as folder:
        rounds, idle_bytes = measure(options, Path(folder))
    show(rounds, idle_bytes)
    within = [r.streams for r in rounds if r.delay_p95_ms <= options.limit_ms]
    print(f"streams within {options.limit_ms:g} ms at the 95th percentile: {max(within, default=0)}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "options": {name: value for name, value in vars(options).items() if name != "out"},
            "idle_client_bytes": round(idle_bytes),
            "streams_within_limit": max(within, default=0),
            "rounds": [{**dataclasses.asdict(r), "cpu_us_per_token": round(r.cpu_us_per_token, 1)} for r in rounds],
        }
        (options.out / "relay.json").write_text(json.dumps(result, indent=2) + "\n")
    return 1 if any(r.lost for r in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
