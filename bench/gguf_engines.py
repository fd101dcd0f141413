"""Measures llamacpp against the engine that served a GGUF before, in turns: `python -m bench.gguf_engines`.

Two models: the packaged one (Q4_1), which OpenVINO reads, and the same weights under the name phi3 (Q4_0, since
llama.cpp has no batched kernel for Q4_1), which it does not read and transformers unpacks. Each
engine runs in its process, as a worker has it, and stays loaded; in each round each gets the same prompts, none of
which comes twice. Tokens per second of the engine's own processor time are comparable on a machine that does other work
meanwhile; those of the clock are not.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType

from bench.phi3_copy import write_phi3
from services.models.catalogue import ModelSource, resolve
from services.tokens.tokenization import load_tokenizer
from workers.engine import Engine, EngineEvent, EngineOptions, Sampling
from workers.engine_process import EngineProcess

WORDS = ("river", "market", "letter", "winter", "engine", "garden", "teacher", "bridge", "morning", "village", "doctor")
KINDS = {kind.name: kind for kind in (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0)}
DEADLINE_S = 600


@dataclass(frozen=True)
class Speed:
    """Of one engine in one round."""

    per_cpu_s: float
    per_s: float
    first_ms: float  # median time to the first token


@dataclass(frozen=True)
class Rival:
    """An engine with a model, loaded."""

    name: str
    engine: Engine
    pid: int

    def answer(self, prompts: Sequence[list[int]], tokens: int) -> Speed:
        """All at once."""
        firsts: dict[str, float] = {}
        ends = threading.Semaphore(0)
        failed: list[EngineEvent] = []

        def on_event(event: EngineEvent) -> None:
            firsts.setdefault(event.request_id, time.monotonic())
            if event.outcome:
                failed.extend([event] if event.outcome != "finished" else [])
                ends.release()

        cpu, began = self._cpu_s(), time.monotonic()
        for number, prompt in enumerate(prompts):
            self.engine.submit(f"r{number}", prompt, Sampling(tokens), on_event)
        for _ in prompts:
            assert ends.acquire(timeout=DEADLINE_S), f"{self.name} does not answer"
        assert not failed, failed
        made, first_s = tokens * len(prompts), statistics.median(firsts.values()) - began
        return Speed(made / (self._cpu_s() - cpu), made / (time.monotonic() - began), first_s * 1000)

    def memory_mib(self) -> int:
        """The most that its process had."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

    def _cpu_s(self) -> float:
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def rival(name: str, source: ModelSource, state: Path) -> Iterator[Rival]:
    others = set(multiprocessing.active_children())
    engine = EngineProcess(source, EngineOptions(slots=16, context_tokens=2048, state_dir=state), engine=name)
    engine.start()
    try:
        (process,) = set(multiprocessing.active_children()) - others
        assert process.pid is not None
        yield Rival(f"{name}, {source.name}", engine, process.pid)
    finally:
        engine.stop()


def prompts_of(source: ModelSource, count: int) -> list[list[int]]:
    tokenizer = load_tokenizer(source).decoder()
    texts = [f"Tell me a story of a {' and a '.join(random.choices(WORDS, k=12))}." for _ in range(count)]
    chats = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in texts]
    return [tokenizer.encode(chat).ids for chat in chats]


def compare(ours: Rival, other: Rival, source: ModelSource, arguments: argparse.Namespace) -> None:
    print(f"\n| {source.name}: clients | {other.name}: tokens/CPU s, tokens/s | {ours.name} | ratios, CPU | first ms |")
    print("|---|---|---|---|---|")
    for clients in arguments.clients:
        rounds = []
        for number in range(arguments.rounds):
            prompts = prompts_of(source, clients)
            order = (ours, other) if number % 2 else (other, ours)
            rounds.append({each.name: each.answer(prompts, arguments.tokens) for each in order})
        ratios = sorted(each[ours.name].per_cpu_s / each[other.name].per_cpu_s for each in rounds)
        told = [_told([each[one.name] for each in rounds]) for one in (other, ours)]
        firsts = [statistics.median(each[one.name].first_ms for each in rounds) for one in (other, ours)]
        middle = f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        print(f"| {clients} | {told[0]} | {told[1]} | {middle} | {firsts[0]:.0f}, {firsts[1]:.0f} |", flush=True)
    print(f"\nMost memory, MiB: {other.name} {other.memory_mib()}, {ours.name} {ours.memory_mib()}")


def _told(speeds: Sequence[Speed]) -> str:
    per_cpu_s, per_s = ([getattr(each, name) for each in speeds] for name in ("per_cpu_s", "per_s"))
    return f"{statistics.median(per_cpu_s):.1f}, {statistics.median(per_s):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--kind", choices=KINDS, default="Q4_0", help="How the phi3's weights are quantised.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        packaged = resolve("smollm2-135m")
        assert packaged.path is not None
        unread = ModelSource(
            "phi3", "gguf", write_phi3(packaged.path, Path(folder) / "phi3.gguf", KINDS[arguments.kind])
        )
        for source, name in ((unread, "transformers"), (packaged, "openvino")):
            with ExitStack() as stack:
                ours, other = (stack.enter_context(rival(each, source, Path(folder))) for each in ("llamacpp", name))
                for each in (ours, other):
                    each.answer(prompts_of(source, 2), 8)  # warm
                compare(ours, other, source, arguments)


if __name__ == "__main__":
    main()
