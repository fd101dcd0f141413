"""A recipe on datatrove has the records and the rejects of our own run."""

import json
from pathlib import Path

import pytest

from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from pipelines.formats.read import read
from pipelines.records.ledger import Ledger
from services.jobs.recipe import InputOptions, Recipe, parse_recipe

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


def run_both(folder: Path, recipe: Recipe, inputs: list[str]) -> tuple[Path, Path]:
    """The folders of datatrove's run and of our own."""
    from datatrove.executor import LocalPipelineExecutor

    from pipelines.cleaning.datatrove_blocks import stages

    out, own = folder / "blocks", folder / "own"
    for number, stage in enumerate(stages(recipe, inputs, out)):
        logs = str(folder / "logs" / str(number))
        LocalPipelineExecutor(list(stage.blocks), tasks=stage.tasks, workers=1, logging_dir=logs).run()
    local.run(Cleaning(own, recipe, inputs), 1, lambda unit, progress: None)
    return out, own


def test_three_tasks_make_what_one_run_makes(tmp_path: Path) -> None:
    """Barriers see the records of all tasks: a copy in the last file is rejected for its twin in the first."""
    inputs = [write_talks(tmp_path / f"{n}.jsonl", 30 * n) for n in range(3)]
    out, own = run_both(tmp_path, parse_recipe(RECIPE, "r.yaml"), inputs)
    for name, files in (("data", "0*.jsonl"), ("validation", "validation-*.jsonl")):
        joined = b"".join(path.read_bytes() for path in sorted((out / "data").glob(files)))
        assert joined and joined == (own / f"{name}.jsonl").read_bytes()
    rejects = [line for path in (out / "rejects").iterdir() for line in path.read_bytes().splitlines()]
    assert sorted(rejects) == sorted((own / "rejects.jsonl").read_bytes().splitlines())
    assert any(b'"near_duplicate"' in line or b'"duplicate"' in line for line in rejects)


@pytest.mark.parametrize("kind", ["openai-jsonl", "parquet"])
def test_what_a_recipe_keeps_is_cleaned_and_written(tmp_path: Path, kind: str) -> None:
    """A rejected answer was neither cleaned nor compared with others, and Parquet lost it."""
    given = tmp_path / "pairs.jsonl"
    rejected = ("Mail jo@firm.de now.", "No idea.", "Mail jo@firm.de now.")
    pairs = [{"prompt": "Who?", "chosen": "Nobody knows.", "rejected": one} for one in rejected]
    given.write_text("".join(json.dumps({"id": f"p{n}", **pair}) + "\n" for n, pair in enumerate(pairs)))
    steps = "[mask_personal_data, {roles: {min_chars: 1}}, deduplicate]"
    recipe = f"{{name: kept, input: {{keep: [pairs]}}, steps: {steps}, output: {{format: {kind}}}}}"
    out, own = run_both(tmp_path, parse_recipe(recipe, "r.yaml"), [str(given)])
    end = "parquet" if kind == "parquet" else "jsonl"
    made = out / "data" / f"00000.{end}"
    assert made.read_bytes() == (own / f"data.{end}").read_bytes()
    read_back = list(read(str(made), InputOptions(keep=("pairs",)), Ledger(), lambda line: None))
    assert [one.rejected.text for one in read_back if one.rejected] == ["Mail [EMAIL] now.", "No idea."]
