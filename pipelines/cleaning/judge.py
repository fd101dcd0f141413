"""A unit `judge`: one barrier step reads the signatures of all shards and decides which records are rejected.

Its verdicts are written by shard; the next stage carries them out (`pipelines/cleaning/stage.py`).
"""

from collections.abc import Mapping, Sequence

import orjson

from pipelines import steps
from pipelines.cleaning.units import RunFolder, Unit
from pipelines.steps import Verdict
from services.jobs.recipe import Recipe


def run(folder: RunFolder, recipe: Recipe, stages: Sequence[range], unit: Unit, num_shards: int) -> None:
    """Write the folder of `unit`: for each shard, index of the record → [reason, detail]."""
    barrier = steps.build(recipe.steps[stages[unit.stage + 1].start], recipe)
    shards = [Unit("shard", unit.stage, shard) for shard in range(num_shards)]
    with folder.local(shards, "signatures.bin") as signatures:
        judged = barrier.judge(signatures)
    twins = _ids(folder, shards, judged)
    with folder.making(unit) as draft:
        for number, ended in enumerate(judged):
            said = {str(index): [verdict.reason, _detail(verdict, twins)] for index, verdict in sorted(ended.items())}
            (draft / f"{number:05d}.json").write_bytes(orjson.dumps(said))


def _ids(
    folder: RunFolder, shards: Sequence[Unit], judged: Sequence[Mapping[int, Verdict]]
) -> dict[tuple[int, int], str]:
    """The ids of all records that stay for another."""
    wanted: dict[int, set[int]] = {}
    for ended in judged:
        for verdict in ended.values():
            if verdict.twin is not None:
                wanted.setdefault(verdict.twin[0], set()).add(verdict.twin[1])
    found = {}
    for number, indices in sorted(wanted.items()):
        with folder.open(shards[number], "ids.jsonl") as file:
            for index, line in enumerate(file):
                if index in indices:
                    found[number, index] = orjson.loads(line)
    return found


def _detail(verdict: Verdict, ids: Mapping[tuple[int, int], str]) -> str:
    return f"kept: {ids[verdict.twin]}" if verdict.twin is not None else ""


def verdicts(folder: RunFolder, stage: int, shard: int) -> dict[int, tuple[str, str]]:
    """What the barrier after `stage` said of one shard: index of the record → (reason, detail)."""
    with folder.open(Unit("judge", stage), f"{shard:05d}.json") as file:
        said = orjson.loads(file.read())
    return {int(index): (reason, detail) for index, (reason, detail) in said.items()}
