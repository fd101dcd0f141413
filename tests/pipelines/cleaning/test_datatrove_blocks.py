"""A recipe on datatrove has the records and the rejects of our own run."""

import json
from pathlib import Path

import pytest

from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from services.jobs.recipe import parse_recipe

pytest.importorskip("datatrove", reason="datatrove is not installed: make datatrove")

RECIPE = """
name: blocks
steps:
  - roles: {min_chars: 1}
  - deduplicate: {near: true}
  - split_long: {max_tokens: 512}
  - split_validation: {fraction: 0.2}
  - sample: {fraction: 0.7}
"""


def write_talks(path: Path, first: int) -> str:
    """Records of every fate; one in three also stands in another file."""
    with path.open("w") as file:
        for number in range(first, first + 30):
            told = number % 30 if number % 3 == 0 else number
            words = " ".join(str((told * 7919 + n * 104729) % 9973) for n in range(20 + told % 40))
            said = [("human", f"Question {told}?"), ("gpt", words), ("human", "And more?"), ("gpt", words[::-1])]
            turns = [{"from": role, "value": text} for role, text in said]
            print(json.dumps({"id": f"c{number}", "conversations": turns[: number % 5 or 4]}), file=file)
    return str(path)


def test_three_tasks_make_what_one_run_makes(tmp_path: Path) -> None:
    """Barriers see the records of all tasks: a copy in the last file is rejected for its twin in the first."""
    from datatrove.executor import LocalPipelineExecutor

    from pipelines.cleaning.datatrove_blocks import stages

    inputs = [write_talks(tmp_path / f"{n}.jsonl", 30 * n) for n in range(3)]
    recipe, out = parse_recipe(RECIPE, "r.yaml"), tmp_path / "blocks"
    for number, stage in enumerate(stages(recipe, inputs, out)):
        logs = str(tmp_path / "logs" / str(number))
        LocalPipelineExecutor(list(stage.blocks), tasks=stage.tasks, workers=1, logging_dir=logs).run()

    local.run(Cleaning(tmp_path / "own", recipe, inputs), 1, lambda unit, progress: None)
    own = tmp_path / "own"
    for name, files in (("data", "0*.jsonl"), ("validation", "validation-*.jsonl")):
        joined = b"".join(path.read_bytes() for path in sorted((out / "data").glob(files)))
        assert joined and joined == (own / f"{name}.jsonl").read_bytes()
    rejects = [line for path in (out / "rejects").iterdir() for line in path.read_bytes().splitlines()]
    assert sorted(rejects) == sorted((own / "rejects.jsonl").read_bytes().splitlines())
    assert any(b'"near_duplicate"' in line or b'"duplicate"' in line for line in rejects)
