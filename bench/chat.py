"""The whole path with a real model: `python -m bench.chat`. What do queue, journal, relay and sockets cost?

Closed-loop clients ask for greedy answers of a fixed length, through the path (socket → queue → worker → journal →
relay → socket) and from the same engine called in this process. Both sides get the same prompts, take turns, and idle
while the other runs, so that their ratio means something on a noisy machine; the table gives the median over rounds.
The clients of a side start one after the other over a second: in lockstep, each would wait for the prompts of all.
"""

import argparse
import dataclasses
import json
import random
import statistics
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.load_client import Answer, Client, Fleet
from bench.system import BenchSystem, CpuMeter, children, percentile
from services.models.catalogue import resolve
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from services.wire.messages import Message
from workers.engine import Engine, EngineEvent, EngineOptions, Sampling
from workers.select_engine import create_engine

TIMEOUT_S = 120.0
START_OVER_S = 1.0
SUBJECTS = ("rivers", "bridges", "volcanoes", "glaciers", "clocks", "sailing", "printing", "bees", "maps", "bread")
PLACES = ("Norway", "Peru", "Japan", "Kenya", "Canada", "Portugal", "Vietnam", "Iceland", "Egypt", "Chile")


@dataclass
class Cell:
    """One side at one number of clients in one round. Times are milliseconds from the client's submission."""

    clients: int
    side: str  # path, engine
    requests: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    ttft_ms: list[float] = field(default_factory=list)
    stream_tokens_per_s: list[float] = field(default_factory=list)  # of each answer, after its first token
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    processes: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.elapsed_s


def make_prompts(count: int, seed: int) -> list[str]:
    """About 70 tokens each with the template; no two alike, so that no prefix cache answers for the engine."""
    generator = random.Random(seed)
    return [
        f"Note {generator.randrange(10**6)}. Write a long and detailed essay about the history of "
        f"{generator.choice(SUBJECTS)} and {generator.choice(SUBJECTS)} in {generator.choice(PLACES)}, "
        f"with at least ten paragraphs and many examples."
        for _ in range(count)
    ]


def run_engine(
    engine: Engine, tokenizer: ChatTokenizer, fleet: Fleet, clients: int, prompts: list[str], max_tokens: int
) -> Cell:
    """The engine alone: token ids in, token ids out. Each client submits its next prompt when its last one ends.

    The idle sockets of `fleet` answer the server's pings meanwhile.
    """
    cell = Cell(clients, "engine", requests=len(prompts))
    waiting = [tokenizer.render([Message("user", prompt)]) for prompt in prompts][::-1]
    sampling = Sampling(max_new_tokens=max_tokens, stop_token_ids=tokenizer.stop_token_ids)
    lock, over = threading.Lock(), threading.Event()
    times: dict[str, tuple[float, float, int]] = {}  # submitted, first token, tokens
    failed: list[EngineEvent] = []

    def submit() -> None:
        rid = uuid.uuid4().hex
        times[rid] = (time.monotonic(), 0.0, 0)
        engine.submit(rid, waiting.pop(), sampling, on_event)

    def on_event(event: EngineEvent) -> None:
        now = time.monotonic()
        with lock:
            submitted, first, tokens = times[event.request_id]
            times[event.request_id] = (submitted, first or now, tokens + len(event.token_ids))
            if event.outcome is None:
                return
            cell.tokens += times[event.request_id][2]
            cell.ttft_ms.append(1000 * ((first or now) - submitted))
            if first and now > first:
                cell.stream_tokens_per_s.append((times[event.request_id][2] - 1) / (now - first))
            if event.outcome != "finished":
                failed.append(event)
            if waiting:
                submit()
            elif len(cell.ttft_ms) == len(prompts):
                cell.elapsed_s = now - started
                over.set()

    started = time.monotonic()
    for _ in range(clients):
        with lock:
            submit()
        time.sleep(START_OVER_S / clients)
    if not fleet.run(over.is_set, TIMEOUT_S) or failed:
        raise RuntimeError(f"the engine alone did not answer all of {len(prompts)} prompts: {failed[:1]}")
    return cell


def run_path(system: BenchSystem, fleet: Fleet, model: str, clients: int, prompts: list[str], max_tokens: int) -> Cell:
    """The same through sockets. The time of a stage comes from the server's clock, which is this machine's."""
    cell = Cell(clients, "path", requests=len(prompts))
    waiting = prompts[::-1]
    answers: list[Answer] = []
    sent_wall: dict[str, float] = {}

    def submit(client: Client) -> None:
        rid = uuid.uuid4().hex
        sent_wall[rid] = time.time()
        answers.append(client.submit(rid, model, waiting.pop(), max_new_tokens=max_tokens, temperature=0))

    def ended(client: Client, answer: Answer) -> None:
        if waiting:
            submit(client)

    roles = {role: system.process(role) for role in ("valkey", "worker", "web")}
    for child in children(roles["worker"]):
        roles["engine"] = child
    meter = CpuMeter({**roles, "clients": psutil.Process()})
    started = time.monotonic()
    for client in fleet.clients[:clients]:
        client.on_done = ended
        submit(client)
        fleet.run(lambda: False, START_OVER_S / clients)
    if not fleet.run(lambda: not waiting and all(answer.done for answer in answers), TIMEOUT_S):
        raise RuntimeError(f"{sum(not answer.done for answer in answers)} answers did not end within {TIMEOUT_S:g} s")
    cell.elapsed_s = time.monotonic() - started
    cell.processes = meter.read()
    for answer in answers:
        if answer.problems or answer.done["status"] != "finished":
            raise RuntimeError(f"{answer.rid}: {answer.problems} {answer.done}")
        _add_answer(cell, answer, system, sent_wall[answer.rid])
    return cell


def _add_answer(cell: Cell, answer: Answer, system: BenchSystem, sent_wall: float) -> None:
    tokens, first_at = answer.done["usage"]["completion_tokens"], answer.arrivals[0][1]
    cell.tokens += tokens
    cell.ttft_ms.append(1000 * (first_at - answer.sent_at))
    if answer.done_at > first_at:
        cell.stream_tokens_per_s.append((tokens - 1) / (answer.done_at - first_at))
    head = system.journal.head(answer.rid)
    assert head is not None
    sent, received = 1000 * sent_wall, 1000 * (sent_wall + first_at - answer.sent_at)
    stages = {
        "sent→accepted": head.created_ms - sent,
        "accepted→begun": head.begun_ms - head.created_ms,
        "begun→first token": head.first_ms - head.begun_ms,
        "first token→client": received - head.first_ms,
    }
    for name, value in stages.items():
        cell.stages_ms.setdefault(name, []).append(value)


@dataclass(frozen=True)
class Comparison:
    """One number of clients over all rounds; each number is the median of the rounds' values."""

    clients: int
    path_tokens_per_s: float
    engine_tokens_per_s: float
    ratio: float
    path_stream_tokens_per_s: float
    path_ttft_p50_ms: float
    path_ttft_p95_ms: float
    engine_ttft_p50_ms: float
    engine_ttft_p95_ms: float
    added_ttft_p50_ms: float
    stages_p50_ms: dict[str, float]
    cpu_percent: dict[str, float]
    ratios: list[float]


def compare(clients: int, pairs: list[tuple[Cell, Cell]]) -> Comparison:
    def median(values: list[float], digits: int = 1) -> float:
        return round(statistics.median(values), digits)

    paths, engines = [path for path, _ in pairs], [engine for _, engine in pairs]
    ratios = [path.tokens_per_s / engine.tokens_per_s for path, engine in pairs]
    added = [percentile(path.ttft_ms, 50) - percentile(engine.ttft_ms, 50) for path, engine in pairs]
    return Comparison(
        clients,
        median([cell.tokens_per_s for cell in paths]),
        median([cell.tokens_per_s for cell in engines]),
        median(ratios, 3),
        median([statistics.median(cell.stream_tokens_per_s) for cell in paths]),
        median([percentile(cell.ttft_ms, 50) for cell in paths]),
        median([percentile(cell.ttft_ms, 95) for cell in paths]),
        median([percentile(cell.ttft_ms, 50) for cell in engines]),
        median([percentile(cell.ttft_ms, 95) for cell in engines]),
        median(added),
        {name: median([percentile(cell.stages_ms[name], 50) for cell in paths]) for name in paths[0].stages_ms},
        {role: median([cell.processes[role]["cpu_percent"] for cell in paths]) for role in paths[0].processes},
        [round(ratio, 3) for ratio in ratios],
    )


def show(results: list[Comparison]) -> None:
    columns = (
        "clients",
        "path t/s",
        "engine t/s",
        "ratio",
        "t/s stream",
        "TTFT p50",
        "p95",
        "engine p50",
        "p95",
        "added",
    )
    print("\n" + "".join(f"{column:>11}" for column in columns) + "   (t/s: tokens per second; TTFT in ms)")
    for r in results:
        rates = (r.clients, r.path_tokens_per_s, r.engine_tokens_per_s, f"{r.ratio:.1%}", r.path_stream_tokens_per_s)
        path_ttft, engine_ttft = (r.path_ttft_p50_ms, r.path_ttft_p95_ms), (r.engine_ttft_p50_ms, r.engine_ttft_p95_ms)
        print("".join(f"{value:>11}" for value in (*rates, *path_ttft, *engine_ttft, r.added_ttft_p50_ms)))
    print("\nWhere the path's time to the first token goes, median ms; CPU in % of one core")
    for r in results:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in r.stages_p50_ms.items())
        print(f"{r.clients:>7}: {stages}; " + ", ".join(f"{name} {cpu:.0f}%" for name, cpu in r.cpu_percent.items()))
    sys.stdout.flush()


def measure(options: argparse.Namespace, folder: Path) -> list[Comparison]:
    most = max(options.clients)
    source = resolve(options.model)
    tokenizer = load_tokenizer(source)
    deadline = time.monotonic() + 60 * options.max_minutes
    pairs: dict[int, list[tuple[Cell, Cell]]] = {clients: [] for clients in options.clients}
    engine, reason = create_engine(source, EngineOptions(slots=most), engine=options.engine)
    print(reason)
    settings = {"model": options.model, "engine": options.engine, "slots": most, "max_user_requests": 2 * most}
    with BenchSystem(folder, appendfsync=options.appendfsync, **settings) as system:
        system.start_worker("workers")
        engine.start()
        fleet = Fleet(system.start_web())
        try:
            fleet.connect(most)
            _warm_up(engine, tokenizer, system, fleet, source.name)
            for number in range(options.rounds):
                for clients in options.clients:
                    if time.monotonic() > deadline and pairs[options.clients[-1]]:
                        continue
                    prompts = make_prompts(clients * max(options.requests, 4 // clients), 1000 * number + clients)
                    path = run_path(system, fleet, source.name, clients, prompts, options.tokens)
                    alone = run_engine(engine, tokenizer, fleet, clients, prompts, options.tokens)
                    pairs[clients].append((path, alone))
                    print(
                        f"round {number + 1}, {clients} clients: path {path.tokens_per_s:.0f} t/s, engine alone "
                        f"{alone.tokens_per_s:.0f} t/s",
                        flush=True,
                    )
        finally:
            fleet.close()
            engine.stop()
    return [compare(clients, found) for clients, found in pairs.items() if found]


def _warm_up(engine: Engine, tokenizer: ChatTokenizer, system: BenchSystem, fleet: Fleet, model: str) -> None:
    prompts = make_prompts(4, 10**9)  # asked nowhere else: a prefix cache would answer
    run_engine(engine, tokenizer, fleet, 2, prompts, 16)
    run_path(system, fleet, model, 2, prompts, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clients", type=int, nargs="+", default=[1, 4, 16, 64], help="numbers of closed-loop clients")
    add("--rounds", type=int, default=3, help="how often each number is measured")
    add("--requests", type=int, default=2, help="questions per client and round (at least 4 in all)")
    add("--tokens", type=int, default=128, help="most new tokens of an answer")
    add("--model", default="smollm2-135m", help="a catalogue name, folder, GGUF or hub id")
    add("--engine", default="openvino", help="engine adapter")
    add("--appendfsync", choices=["always", "everysec", "no"], default="always", help="of the Redis server")
    add("--max-minutes", type=float, default=4, help="begin nothing more after this")
    add("--out", type=Path, help="folder for chat.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-chat-") as folder:
        results = measure(options, Path(folder))
    show(results)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "options": {name: value for name, value in vars(options).items() if name != "out"},
            "results": [dataclasses.asdict(result) for result in results],
        }
        (options.out / "chat.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
