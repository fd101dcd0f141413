"""The unit `finish`: the shards of the last stage become the user's files, and the counts a report.

    data.jsonl (or .json, .parquet)   the records, in the order of the input
    validation.jsonl                  those set aside by `split_validation`
    rejects.jsonl                     every record and turn that is in neither of these: step, reason, detail, record
    report.json, report.html          the same report twice

The unit writes nothing that depends on time, place or chance, so that a repeated run has the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from pipelines.cleaning.report import render
from pipelines.cleaning.units import RunFolder, Unit
from pipelines.formats.write import Writer, suffix
from pipelines.records.conversation import Conversation, from_record, load
from pipelines.records.ledger import StepCounts
from pipelines.records.statistics import Statistics
from services.jobs.recipe import Recipe
from services.machine import files

TELL_EVERY = 1000  # records
MAX_SAMPLES = 12
MAX_PIECES = 3  # of one sample


def run(
    folder: RunFolder,
    recipe: Recipe,
    inputs: Sequence[str],
    stages: Sequence[range],
    num_shards: int,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """Write the output beside, move it in place, say that all is done, remove what is no longer needed."""
    units = [Unit("read"), *(Unit("shard", s, n) for s in range(len(stages)) for n in range(num_shards))]
    counts = {unit.name: _counts(folder, unit) for unit in units}
    steps = _steps(recipe, counts)
    with folder.draft(Unit("finish")) as draft:
        samples = _Samples(folder)
        _write_rejects(folder, units, draft / "rejects.jsonl", samples)
        last = [Unit("shard", len(stages) - 1, shard) for shard in range(num_shards)]
        after = _write_data(draft, recipe, _records(folder, last), samples, tell)
        report = {
            "recipe": {"name": recipe.name, "digest": recipe.digest, "steps": [step.name for step in recipe.steps]},
            "inputs": list(inputs),
            "steps": [{"step": label, **found.as_dict()} for label, found in steps.items()],
            "sums": check_sums(steps),
            "before": counts["read"]["statistics"],
            "after": {name: found.as_dict() for name, found in after.items()},
            "samples": samples.as_list(),
        }
        files.write_json(draft / "report.json", report)
        (draft / "report.html").write_text(render(report), "utf-8")
        folder.finish(draft, {name: _without_statistics(found) for name, found in counts.items()})


def _counts(folder: RunFolder, unit: Unit) -> dict[str, Any]:
    with folder.open(unit, "counts.json") as file:
        return dict(orjson.loads(file.read()))


def _without_statistics(counts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in counts.items() if name != "statistics"}


def _steps(recipe: Recipe, counts: dict[str, Any]) -> dict[str, StepCounts]:
    """The counts of every step over all shards, in the order of the recipe, `read` first."""
    labels = ["read", *(recipe.step_label(index) for index in range(len(recipe.steps)))]
    steps = {label: StepCounts() for label in labels}
    for found in counts.values():
        for label, values in found["steps"].items():
            steps[label].add(StepCounts.from_dict(values))
    return steps


def check_sums(steps: dict[str, StepCounts]) -> dict[str, int]:
    """Every record and turn is accounted for, or this raises: a step that loses one silently is our bug."""
    before = steps["read"]
    for label, counts in steps.items():
        if label == "read":
            assert counts.records_in == counts.records_out + counts.rejected.total(), f"read: {counts}"
            continue
        assert counts.records_in == before.records_out, f"{label}: not all that left the step before it: {counts}"
        assert counts.pieces_added >= 0, f"{label} lost records: {counts}"
        assert counts.turns_in == before.turns_out, f"{label}: not all turns that left the step before it: {counts}"
        assert counts.turns_lost == 0, f"{label}: {counts.turns_lost} turns are unaccounted for: {counts}"
        before = counts
    return {
        "records_read": steps["read"].records_in,
        "records_rejected": sum(counts.rejected.total() for counts in steps.values()),
        "pieces_added": sum(counts.pieces_added for label, counts in steps.items() if label != "read"),
        "records_written": before.records_out,
    }


def _write_rejects(folder: RunFolder, units: Sequence[Unit], path: Path, samples: "_Samples") -> None:
    with path.open("wb") as out:
        for unit in units:
            with folder.open(unit, "rejects.jsonl") as file:
                for line in file:
                    out.write(line)
                    samples.see_reject(line)


def _write_data(
    draft: Path,
    recipe: Recipe,
    records: Iterator[Conversation],
    samples: "_Samples",
    tell: Callable[[dict[str, Any]], None],
) -> dict[str, Statistics]:
    """The files of records by split. The statistics of each."""
    names = {"train": "data", "validation": "validation"}
    if all(step.name != "split_validation" for step in recipe.steps):
        names.pop("validation")
    after = {split: Statistics() for split in names}
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                Writer(
                    draft / (name + suffix(recipe.output.format)), recipe.output.format, full=bool(recipe.input.keep)
                )
            )
            for split, name in names.items()
        }
        for number, conversation in enumerate(_with_unique_ids(records), start=1):
            split = conversation.split or "train"
            writers[split].write(conversation)
            after[split].add(conversation)
            samples.see(conversation)
            if number % TELL_EVERY == 0:
                tell({"records": number, "of": 0, "steps": {}})
    return after


def _records(folder: RunFolder, shards: Sequence[Unit]) -> Iterator[Conversation]:
    for unit in shards:
        with folder.open(unit, "data.jsonl") as file:
            for line in file:
                yield load(line)


def _with_unique_ids(conversations: Iterator[Conversation]) -> Iterator[Conversation]:
    """The second of an id becomes `<id>-2`: readers of the dataset may take ids for names."""
    used: dict[str, int] = {}  # id → how many were given a name made of it
    for conversation in conversations:
        name, number = conversation.id, used.get(conversation.id, 0)
        while name in used:
            number += 1
            name = f"{conversation.id}-{number + 1}"
        used[conversation.id] = number
        used.setdefault(name, 0)
        yield conversation if name == conversation.id else conversation.renamed(name)


class _Samples:
    """A few records of the input and their results, for the report."""

    def __init__(self, folder: RunFolder) -> None:
        with folder.open(Unit("read"), "samples.jsonl") as file:
            before = [load(line) for line in file]
        self._found: dict[tuple[str, str, int], dict[str, Any]] = {
            _key(one): {"id": one.id, "source": [one.source.file, one.source.line], "before": _turns(one), "after": []}
            for one in before
        }

    def see(self, conversation: Conversation) -> None:
        found = self._found.get(_key(conversation))
        if found is not None and len(found["after"]) < MAX_PIECES:
            found["after"].append({"id": conversation.id, "turns": _turns(conversation)})

    def see_reject(self, line: bytes) -> None:
        if b'"record"' not in line or b'"turns":[' in line.split(b'"record"', 1)[0]:
            return  # it could not be read, or goes on without some turns
        reject = orjson.loads(line)
        found = self._found.get(_key(from_record(reject["record"])))
        if found is not None:
            found["rejected"] = {name: reject[name] for name in ("step", "reason", "detail")}

    def as_list(self) -> list[dict[str, Any]]:
        """Kept and changed ones first, then rejected ones."""
        found = list(self._found.values())
        changed = [one for one in found if one["after"] and [one["before"]] != [p["turns"] for p in one["after"]]]
        rejected = [one for one in found if "rejected" in one]
        return [*changed[: MAX_SAMPLES - min(4, len(rejected))], *rejected[:4]]


def _key(conversation: Conversation) -> tuple[str, str, int]:
    return conversation.origin_id, conversation.source.file, conversation.source.line


def _turns(conversation: Conversation) -> list[list[str]]:
    return [[turn.role, turn.text] for turn in conversation.turns]
