"""A recipe on datatrove against our own run: the same bytes?

    make datatrove && python -m bench.datatrove_run --megabytes 100 --recipe RECIPE

Four files of `bench.corpus` are four tasks of datatrove's local executor, on as many processes as our own run has. The
exit code is 1 when records or rejects differ.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor

from bench.corpus import conversations as corpus
from bench.corpus.__main__ import write
from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from pipelines.cleaning.datatrove_blocks import stages
from services.jobs.recipe import Recipe, read_recipe
from services.places import ROOT

NUM_FILES = 4


def write_inputs(folder: Path, num_bytes: int) -> list[str]:
    """No record stands in two of them, but for the corpus's own copies."""
    records = iter(corpus(1))
    inputs = [folder / f"{number}.jsonl" for number in range(NUM_FILES)]
    for path in inputs:
        write(path, records, "jsonl", num_bytes // NUM_FILES)
    return list(map(str, inputs))


def on_datatrove(recipe: Recipe, inputs: list[str], folder: Path, processes: int) -> None:
    for number, stage in enumerate(stages(recipe, inputs, folder)):
        logs = str(folder / "logs" / str(number))
        LocalPipelineExecutor(list(stage.blocks), tasks=stage.tasks, workers=processes, logging_dir=logs).run()


def differences(blocks: Path, own: Path) -> Iterator[str]:
    for name, files in (("data", "0*.jsonl"), ("validation", "validation-*.jsonl")):
        path = own / f"{name}.jsonl"
        joined = b"".join(found.read_bytes() for found in sorted((blocks / "data").glob(files)))
        if joined != (path.read_bytes() if path.exists() else b""):
            yield name
    rejects = [line for path in (blocks / "rejects").iterdir() for line in path.read_bytes().splitlines()]
    if sorted(rejects) != sorted((own / "rejects.jsonl").read_bytes().splitlines()):
        yield "rejects"


def main() -> int:
    parser = argparse.ArgumentParser(description="A recipe on datatrove against our own run.")
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--recipe", type=Path, default=ROOT / "infra/recipes/vicuna.yaml")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-datatrove-") as name:
        folder, recipe = Path(name), read_recipe(given.recipe)
        inputs = write_inputs(folder, int(given.megabytes * 1e6))
        start = time.monotonic()
        on_datatrove(recipe, inputs, folder / "blocks", given.processes)
        between = time.monotonic()
        local.run(Cleaning(folder / "own", recipe, inputs), given.processes, lambda unit, progress: None)
        print(f"datatrove {between - start:.1f} s, our own run {time.monotonic() - between:.1f} s")
        found = list(differences(folder / "blocks", folder / "own"))
    print(f"different: {', '.join(found)}" if found else "the same bytes")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
