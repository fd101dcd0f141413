"""Our trainer with packing against the forerunner's way of padding, on the same conversations in the same run.

    python -m bench.train                        the shipped sample, cleaned by infra/recipes/vicuna.yaml
    python -m bench.train --conversations 12     fewer of them: a random part
    python -m bench.train --sample pipelines/samples/velmora_html.json --seq-len 512     short ones
    python -m bench.train --only attention       flash attention against SDPA from 1k to 16k tokens, on a GPU

Useful tokens are those that are no padding. A rate is over all steps but the first, which also warms up; memory is the
largest resident size of the training process. Runs alternate, each in a process of its own. On a CPU the model is the
packaged one of 135 million weights; on a GPU a Llama with random weights: what it knows does not matter here.
"""

import argparse
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import psutil

from bench.forerunner import METER
from bench.system import unwind_on_sigterm
from services.jobs.training import parse_event
from services.machine.processes import end_tied, start_tied
from services.places import ROOT

RECIPE = ROOT / "infra/recipes/vicuna.yaml"
PACKAGED = "smollm2-135m"
SAMPLE = ROOT / "pipelines/samples/sharegpt_html.json"
TEMPLATE = "vicuna-v1.1"
PROGRAMS = {"padded": "bench.padded", "packed": "pipelines.training"}
SIZES: dict[str, Any] = {
    "vocab_size": 49_152,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 16_384,
}
LARGER = {**SIZES, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12}  # for a GPU


@dataclass(frozen=True)
class Run:
    tokens_per_s: float  # useful ones, of all steps but the first
    tokens_per_cpu_s: float  # the same by processor time, which other programs on the machine change less
    wall_s: float
    peak_rss_bytes: int


def cleaned(sample: Path, folder: Path, num: int) -> Path:
    """The sample as the recipe leaves it: all conversations, or `num` of them in random order."""
    command = [sys.executable, "-m", "pipelines.command", "run", RECIPE, "--in", sample, "--out", folder / "clean"]
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    lines = (folder / "clean" / "data.jsonl").read_text("utf-8").splitlines()
    chosen = random.Random(0).sample(lines, min(num or len(lines), len(lines)))
    data = folder / "data.jsonl"
    data.write_text("\n".join(chosen) + "\n", "utf-8")
    return data


def save_model(folder: Path, sizes: dict[str, Any]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from pipelines.training.models import trained_tokenizer
    from services.models.catalogue import resolve
    from services.tokens.tokenization import load_tokenizer

    made: Any = LlamaForCausalLM
    made(LlamaConfig(**sizes, tie_word_embeddings=True)).save_pretrained(folder)
    trained_tokenizer(load_tokenizer(resolve(PACKAGED), template=TEMPLATE)).save_pretrained(folder)


def describe(data: Path, seq_len: int) -> None:
    """How long the conversations are, which bounds what packing can win."""
    from pipelines.training.data import read_samples
    from services.jobs.training import checked_training
    from services.models.catalogue import resolve
    from services.tokens.tokenization import load_tokenizer

    tokenizer = load_tokenizer(resolve(PACKAGED), template=TEMPLATE)
    fields = {"name": "bench", "model": PACKAGED, "seq_len": seq_len}
    lengths = [len(sample.ids) for sample in read_samples([data], tokenizer, checked_training(fields))]
    tenths = statistics.quantiles(lengths, n=10)
    print(f"{len(lengths)} conversations, {sum(lengths):,} tokens; padded to {seq_len}: {len(lengths) * seq_len:,}")
    print(f"lengths: tenth {tenths[0]:.0f}, median {tenths[4]:.0f}, nine tenths {tenths[8]:.0f}, most {max(lengths)}")
    print(f"padding makes {len(lengths) * seq_len / sum(lengths):.2f} times as many tokens", flush=True)


def apart(function: Any, *arguments: Any) -> None:
    """In a process of its own: this one stays small, and its memory is not counted as that of who it starts."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__} ended with {process.exitcode}")


@dataclass(frozen=True)
class Step:
    """What was read when the line of a step came."""

    end_s: float
    cpu_s: float  # of the processes, so far
    tokens_per_s: float


def trained(program: str, model: str, folder: Path, data: Path, threads: int, config: dict[str, Any]) -> Run:
    """One training from start to end. Raises RuntimeError with its last words when it fails."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        out = Path(name)
        path = out / "config.json"
        path.write_bytes(orjson.dumps({"name": "bench", "model": model, "template": TEMPLATE, **config}))
        command = [sys.executable, "-m", program, "--config", path, "--data", data, "--out", out / "out"]
        steps, usage = _watched([str(part) for part in command], out / "usage.json", threads)
    wall_s, _, peak_bytes = usage
    tokens = sum(step.tokens_per_s * (step.end_s - before.end_s) for before, step in pairwise(steps))
    first, last = steps[0], steps[-1]
    return Run(tokens / (last.end_s - first.end_s), tokens / (last.cpu_s - first.cpu_s), wall_s, peak_bytes)


def _watched(command: Sequence[str], usage: Path, threads: int) -> tuple[list[Step], list[Any]]:
    """Every step, and what the meter says at the end."""
    read, write = os.pipe()
    limits = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    metered = [sys.executable, "-c", METER, str(usage), *command]
    process = start_tied(metered, output=write, environment={**os.environ, **limits})
    os.close(write)
    steps, words = [], []
    try:
        with os.fdopen(read, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words.append(line)
                event = parse_event(line)
                if event and event["event"] == "step":
                    steps.append(Step(time.monotonic(), _cpu_s(process.pid), float(event["tokens_per_s"])))
        code = process.wait()
    finally:
        end_tied(process, signal.SIGTERM, 10.0)
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: {''.join(words[-20:])}")
    return steps, orjson.loads(usage.read_bytes())


def _cpu_s(pid: int) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in psutil.Process(pid).children(recursive=True))


def bench_packing(model: str, folder: Path, data: Path, seq_len: int, rounds: int, threads: int) -> None:
    apart(describe, data, seq_len)
    config = {"seq_len": seq_len, "per_device_tokens": seq_len, "tokens_per_step": seq_len, "epochs": 2}
    config["gradient_checkpointing"] = model != PACKAGED  # the packaged one fits without
    print(
        f"\n{'round':6} {'way':8} {'useful tokens/s':>16} {'per CPU s':>10} {'wall s':>8} {'peak MiB':>9}", flush=True
    )
    runs: dict[str, list[Run]] = {name: [] for name in PROGRAMS}
    for number in range(1, rounds + 1):
        for name, program in PROGRAMS.items():
            run = trained(program, model, folder, data, threads, config)
            runs[name].append(run)
            print(f"{number:<6} {name:8} {_numbers(run)}", flush=True)
    print("\npacked to padded, medians:", end="")
    for field in ("tokens_per_s", "tokens_per_cpu_s", "peak_rss_bytes"):
        packed, padded = (statistics.median(getattr(run, field) for run in runs[way]) for way in ("packed", "padded"))
        print(f"  {field} {packed / padded:.2f}", end="")
    print(flush=True)


def bench_attention(model: str, folder: Path, data: Path, lengths: Sequence[int], threads: int) -> None:
    print(f"\n{'context':>8} {'flash tokens/s':>15} {'SDPA tokens/s':>14} {'ratio':>6}", flush=True)
    for length in lengths:
        # As many tokens a step at every length, and one sequence at a time.
        config = {"seq_len": length, "per_device_tokens": length, "tokens_per_step": 16_384, "epochs": 4}
        flash, sdpa = (
            trained(PROGRAMS["packed"], model, folder, data, threads, {**config, "attention": attention}).tokens_per_s
            for attention in ("flash", "sdpa")
        )
        print(f"{length:8} {flash:15,.0f} {sdpa:14,.0f} {flash / sdpa:6.2f}", flush=True)


def _numbers(run: Run) -> str:
    return (
        f"{run.tokens_per_s:16,.1f} {run.tokens_per_cpu_s:10,.1f} {run.wall_s:8.1f} {run.peak_rss_bytes / 2**20:9,.0f}"
    )


def has_gpu() -> bool:
    answer = subprocess.run([sys.executable, "-c", "import torch; exit(not torch.cuda.is_available())"], check=False)
    return answer.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.train", description="Training: packed against padded.")
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="conversations that the recipe reads")
    parser.add_argument("--conversations", type=int, default=0, help="how many of the sample's; 0: all")
    parser.add_argument("--seq-len", type=int, default=2048, help="Vicuna's is 2048")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="1 on a machine with other work")
    parser.add_argument("--only", choices=("packing", "attention"))
    given = parser.parse_args()
    unwind_on_sigterm()
    gpu = has_gpu()
    with tempfile.TemporaryDirectory(prefix="bench-train-") as name:
        folder = Path(name)
        data = cleaned(given.sample.resolve(), folder, given.conversations)
        model = str(folder / "model") if gpu else PACKAGED
        if gpu:
            apart(save_model, folder / "model", LARGER)
        if given.only != "attention":
            bench_packing(model, folder, data, given.seq_len, given.rounds, given.threads)
        if given.only != "packing" and gpu:
            bench_attention(model, folder, data, (1024, 2048, 4096, 8192, 16_384), given.threads)
        elif given.only != "packing":
            print("Flash attention against SDPA is not measured: torch sees no GPU here.")


if __name__ == "__main__":
    main()
