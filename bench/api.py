"""The API beside the sockets: `python -m bench.api`. What does the same answer cost over HTTP?

Three measurements, in turns over the same processes: closed-loop streams of the packaged model; short answers of a
synthetic worker, as many as the path carries; and the memory of readers whose answers have not begun. Every client's
text must have the length that it asked for, or the bench fails.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chat import make_prompts
from bench.http_fleet import HttpFleet
from bench.load_client import Answer, Fleet
from bench.system import BenchSystem, CpuMeter, children, percentile

PACKAGED, ECHO, STUCK = "smollm2-135m", "echo", "stuck"
TIMEOUT_S = 180.0


@dataclass
class Run:
    """One way in one round."""

    requests_per_s: float
    chars_per_s: float
    ttft_ms: float  # median
    cpu_ms: dict[str, float] = field(default_factory=dict)  # of each process, per request


def closed_loop(
    system: BenchSystem, fleet: Any, model: str, clients: int, prompts: Sequence[str], fields: dict[str, object]
) -> Run:
    """Each client asks its next question when its last one is answered."""
    fleet.connect(clients)
    waiting = list(prompts)[::-1]
    answers: list[Answer] = []

    def submit(client: Any) -> None:
        answers.append(client.submit(uuid.uuid4().hex, model, waiting.pop(), **fields))

    def ended(client: Any, answer: Answer) -> None:
        if waiting:
            submit(client)

    roles = {role: system.process(role) for role in ("valkey", "worker", "web")}
    roles |= {f"engine {child.pid}": child for child in children(roles["worker"])}
    meter, begun = CpuMeter(roles), time.monotonic()
    for client in fleet.clients:
        client.on_done = ended
        submit(client)
    fleet.run(lambda: len(answers) == len(prompts) and all(answer.done for answer in answers), TIMEOUT_S)
    elapsed, used = time.monotonic() - begun, meter.read()
    problems = [answer for answer in answers if answer.problems or not answer.done or not answer.length]
    if problems or len(answers) != len(prompts):
        raise RuntimeError(f"{len(problems)} of {len(answers)} answers went wrong: {problems[:1]}")
    return Run(
        len(prompts) / elapsed,
        sum(answer.length for answer in answers) / elapsed,
        percentile([1000 * (answer.arrivals[0][1] - answer.sent_at) for answer in answers], 50),
        {role: 10 * elapsed * each["cpu_percent"] / len(prompts) for role, each in used.items()},
    )


def compare(name: str, rounds: int, ways: dict[str, tuple[Any, str]], run: Any) -> None:
    """Both ways in turns; the median of each, and the ratio of the second to the first with its spread.

    `run(fleet, name of the limit, seed)`: no two runs ask the same, so that no cache answers for the engine.
    """
    found: dict[str, list[Run]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for number, way in list(enumerate(ways))[:: 1 if turn % 2 == 0 else -1]:
            dial, limit = ways[way]
            with contextlib.closing(dial()) as fleet:
                done = run(fleet, limit, 2 * turn + number)
            if turn:  # the first warms up
                found[way].append(done)
    print(f"\n{name}")
    for way, runs in found.items():
        cpu = {role: statistics.median(each.cpu_ms[role] for each in runs) for role in runs[0].cpu_ms}
        print(
            f"  {way:8} {statistics.median(r.requests_per_s for r in runs):8.1f} requests/s"
            f" {statistics.median(r.chars_per_s for r in runs):9.0f} characters/s"
            f"   first text {statistics.median(r.ttft_ms for r in runs):6.1f} ms   CPU ms a request: "
            + ", ".join(f"{role} {ms:.2f}" for role, ms in cpu.items())
        )
    first, second = found.values()
    for what in ("requests_per_s", "chars_per_s", "ttft_ms"):
        ratios = sorted(getattr(b, what) / getattr(a, what) for a, b in zip(first, second, strict=True))
        print(f"  {what}: {statistics.median(ratios):.3f} × (from {ratios[0]:.3f} to {ratios[-1]:.3f})")
    sys.stdout.flush()


def idle_reader_kib(system: BenchSystem, url: str, count: int) -> float:
    """What the web process grows by per stream whose answer waits in the queue."""
    fleet, web = HttpFleet(url), system.process("web")
    fleet.connect(20 + count)
    for client in fleet.clients[:20]:  # whatever is made once is made now
        client.submit("", STUCK, "x" * 900)
    fleet.run(lambda: False, 4.0)
    before = web.memory_info().rss
    for client in fleet.clients[20:]:
        client.submit("", STUCK, "x" * 900)
        fleet.run(lambda: True, 0.1)
    fleet.run(lambda: False, 10.0)
    grown = web.memory_info().rss - before
    fleet.close()
    return grown / count / 1024


def measure(options: argparse.Namespace, folder: Path) -> None:
    limits = {"max_queue": 5000, "max_user_requests": 5000, "max_address_sockets": 5000}
    with BenchSystem(folder, appendfsync="no", **limits) as system:
        synthetic = "tests.stand_ins.synthetic_worker"
        system.start_worker(synthetic, "--model", STUCK, "--rate", "0.5", "--chunk", "1", "--slots", "1")
        url = system.start_web()
        print(f"a reader that waits: {idle_reader_kib(system, url, options.idle):.1f} KiB of the web process")
        system.end("worker")
        system.start_worker(synthetic, "--model", ECHO, "--rate", "200", "--chunk", "1000", "--slots", "256")
        ways = {"sockets": (lambda: Fleet(url), "max_new_tokens"), "http": (lambda: HttpFleet(url), "max_tokens")}
        compare(
            f"{options.requests} answers of 16 tokens, 64 clients",
            options.rounds,
            ways,
            lambda fleet, limit, seed: closed_loop(
                system, fleet, ECHO, 64, ["sixteen letters."] * options.requests, {limit: 16}
            ),
        )
        system.end("worker")
        system.start_worker("workers")
        compare(
            f"answers of {options.tokens} tokens of {PACKAGED}, 16 clients",
            options.rounds,
            ways,
            lambda fleet, limit, seed: closed_loop(
                system, fleet, PACKAGED, 16, make_prompts(48, seed), {limit: options.tokens, "temperature": 0}
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000, help="short answers of each way in a round")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer of the packaged model")
    parser.add_argument("--idle", type=int, default=1000, help="readers that wait, for the memory of one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-api-") as folder:
        measure(options, Path(folder))


if __name__ == "__main__":
    main()
