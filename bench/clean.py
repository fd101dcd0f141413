"""Cleaning, ours against the forerunner's, on the same generated corpus in the same run.

    python -m bench.clean --megabytes 50                     the table of docs/benchmarks.md
    python -m bench.clean --megabytes 50 --only steps        each step alone, in this process
    python -m bench.clean --only memory --megabytes 10 100 1000

The corpus is `bench.corpus`'s; the forerunner is fschat from PyPI in its own environment (bench/forerunner.py), whose
three programs do what infra/recipes/vicuna.yaml does: clean, optional_clean, split. Sizes are 10^6 bytes of raw input.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.corpus import conversations as corpus
from bench.corpus.__main__ import write
from bench.forerunner import Forerunner, Measured, measured, save_tokenizer
from bench.system import unwind_on_sigterm
from pipelines import steps
from pipelines.formats.read import read
from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from services.jobs.recipe import Recipe, parse_recipe
from services.places import ROOT

RECIPE = (ROOT / "infra/recipes/vicuna.yaml").read_text("utf-8")
CONVERTERS = ("html-to-markdown", "markdownify")


def with_converter(converter: str) -> str:
    """The recipe with this converter in it."""
    text = RECIPE.replace("converter: html-to-markdown", f"converter: {converter}")
    assert f"converter: {converter}" in text
    return text


def like_the_forerunner() -> str:
    """The recipe without the steps that the forerunner has no counterpart of."""
    own = ("  - chat_marks", "  - repair_unicode", "  - quality", "  - special_tokens")
    lines = [line for line in RECIPE.splitlines() if not line.startswith(own)]
    text = "\n".join(lines).replace("near: true", "near: false").replace("ids: keep", "ids: reject")
    assert len(lines) == len(RECIPE.splitlines()) - len(own) and "ids: reject, near: false" in text
    return text


def bench_steps(source: Path) -> None:
    """Each step alone on what the one before left, in this process: of one core."""
    print(f"{'step':28} {'records':>8} {'records/s':>10} {'MB/s':>8}   (processor time; MB of text that enters)")
    start = time.process_time()
    records = list(read(str(source), parse_recipe(RECIPE).input, Ledger(), lambda line: None))
    _line("read", records, time.process_time() - start)
    for converter in CONVERTERS[1:]:
        _step(parse_recipe(with_converter(converter)), 2, _until_html(records), f"html_to_markdown ({converter})")
    recipe = parse_recipe(RECIPE)
    for index, choice in enumerate(recipe.steps):
        if choice.options.barrier:
            barrier = steps.build(choice, recipe)
            start = time.process_time()
            for record in records:
                barrier.sign(record)
            _line(f"{choice.name} (sign)", records, time.process_time() - start)
        else:
            records = _step(recipe, index, records, recipe.step_label(index))


def _until_html(records: list[Conversation]) -> list[Conversation]:
    recipe = parse_recipe(RECIPE)
    assert recipe.steps[2].name == "html_to_markdown"
    for choice in recipe.steps[:2]:
        records = list(steps.build(choice, recipe)(records, Ledger()))
    return records


def _step(recipe: Recipe, index: int, records: list[Conversation], label: str) -> list[Conversation]:
    step = steps.build(recipe.steps[index], recipe)
    list(step(records[:5], Ledger()))  # loads what it loads once: a tokenizer, a detector
    start = time.process_time()
    left = list(step(records, Ledger()))
    _line(label, records, time.process_time() - start)
    return left


def _line(label: str, records: Sequence[Conversation], cpu_s: float) -> None:
    megabytes = sum(len(turn.text.encode()) for record in records for turn in record.turns) / 1e6
    print(f"{label:28} {len(records):8,} {len(records) / cpu_s:10,.0f} {megabytes / cpu_s:8.1f}", flush=True)


def bench_recipe(source: Path, folder: Path, cores: Sequence[int]) -> None:
    """The whole recipe and the forerunner's programs, on the same cores."""
    print(f"\n{'on ' + str(len(cores)) + ' core(s)':44} {'wall s':>7} {'CPU s':>7} {'MB/s':>6} {'peak MiB':>9}")
    theirs = list(_forerunner(source, folder, cores))
    for name, run in theirs:
        _run(name, source, run)
    whole_s = sum(run.wall_s for _, run in theirs)
    print(f"{'forerunner: all three':44} {whole_s:7.2f} {'':7} {_megabytes(source) / whole_s:6.2f}")
    recipes = {f"vicuna.yaml, {converter}": with_converter(converter) for converter in CONVERTERS}
    for name, recipe in {**recipes, "only the forerunner's steps": like_the_forerunner()}.items():
        run = ours(source, folder, recipe, cores)
        _run(f"ours: {name}", source, run)
        print(f"{'':44} {whole_s / run.wall_s:.1f} times as fast as the forerunner", flush=True)


def _forerunner(source: Path, folder: Path, cores: Sequence[int]) -> Iterable[tuple[str, Measured]]:
    forerunner = Forerunner()
    forerunner.install()
    tokenizer = save_tokenizer("smollm2-135m", folder / "tokenizer")
    cleaned, kept, pieces = (folder / name for name in ("cleaned.json", "kept.json", "pieces.json"))
    yield "forerunner: clean_sharegpt", forerunner.clean(source, cleaned, cores)
    yield "forerunner: optional_clean", forerunner.optional_clean(cleaned, kept, cores)
    yield "forerunner: split_long_conversation", forerunner.split(kept, pieces, cores, tokenizer)


def ours(source: Path, folder: Path, text: str, cores: Sequence[int]) -> Measured:
    """`chatserver clean run` as its user runs it, pinned to these cores, into a fresh folder."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(text)
    with tempfile.TemporaryDirectory(prefix="out-", dir=folder) as out:
        command = [sys.executable, "-m", "pipelines.command", "run", str(recipe), "--in", str(source)]
        return measured([*command, "--out", out, "--processes", str(len(cores))], cores)


def bench_memory(folder: Path, sizes: Sequence[float], text: str) -> None:
    """Peak memory of the largest process against the size of the input."""
    print(f"\n{'input MB':>10} {'peak MiB':>9} {'wall s':>8}")
    for size in sizes:
        source = folder / "memory.json"
        write(source, corpus(1), "json", int(size * 1e6))
        run = ours(source, folder, text, [0])
        print(f"{_megabytes(source):10.1f} {run.peak_rss_bytes / 2**20:9.0f} {run.wall_s:8.1f}", flush=True)


def _run(name: str, source: Path, run: Measured) -> None:
    speed = _megabytes(source) / run.wall_s
    print(f"{name:44} {run.wall_s:7.2f} {run.cpu_s:7.2f} {speed:6.2f} {run.peak_rss_bytes / 2**20:9.0f}", flush=True)


def _megabytes(source: Path) -> float:
    return source.stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Cleaning, ours against the forerunner's.")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[50.0])
    parser.add_argument("--only", choices=("steps", "recipe", "memory"))
    parser.add_argument("--recipe", type=Path, help="of the memory; infra/recipes/vicuna.yaml")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="numbers of cores")
    given = parser.parse_args()
    unwind_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="bench-clean-") as name:
        folder = Path(name)
        source = folder / "corpus.json"
        if given.only != "memory":
            write(source, corpus(1), "json", int(given.megabytes[0] * 1e6))
        if given.only in (None, "steps"):
            bench_steps(source)
        if given.only in (None, "recipe"):
            for number in given.cores:
                bench_recipe(source, folder, range(number))
        if given.only in (None, "memory"):
            sizes = given.megabytes if given.only else [given.megabytes[0] / 5, *given.megabytes]
            bench_memory(folder, sizes, given.recipe.read_text("utf-8") if given.recipe else RECIPE)


if __name__ == "__main__":
    main()
