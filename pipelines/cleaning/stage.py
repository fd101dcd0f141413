"""A unit `shard`: one shard through the steps of one stage.

Each step iterates over the step before, so one record is in memory at a time (or one batch, if a step takes batches).
The unit counts the records that enter and leave each step.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from pipelines import steps
from pipelines.cleaning import views
from pipelines.cleaning.judge import verdicts
from pipelines.cleaning.units import RunFolder, Unit, check_space
from pipelines.records.conversation import Conversation, dump, load
from pipelines.records.ledger import Ledger, StepCounts
from pipelines.steps import Barrier, Step
from services.jobs.recipe import Recipe

TELL_EVERY = 100  # records


def run(
    folder: RunFolder,
    recipe: Recipe,
    stages: Sequence[range],
    unit: Unit,
    num_records: int,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """Write the folder of `unit`. `num_records` enter it."""
    with folder.making(unit) as draft, (draft / "rejects.jsonl").open("wb") as rejects:

        def sink(line: dict[str, Any]) -> None:
            rejects.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

        indices = stages[unit.stage]
        ledgers = [Ledger(recipe.step_label(index), sink) for index in indices]

        def progress(records: int) -> dict[str, Any]:
            counts = {ledger.step: ledger.counts.as_dict() for ledger in ledgers}
            return {"records": records, "of": num_records, "steps": counts}

        def told(conversations: Iterable[Conversation]) -> Iterator[Conversation]:
            for number, conversation in enumerate(conversations, start=1):
                yield conversation
                if number % TELL_EVERY == 0:
                    check_space(draft)
                    tell(progress(number))

        conversations: Iterable[Conversation] = told(_entering(folder, unit))
        for index, ledger in zip(indices, ledgers, strict=True):
            conversations = _step(folder, recipe, unit, index, conversations, ledger)
        if unit.stage + 1 < len(stages):
            barrier = steps.build(recipe.steps[stages[unit.stage + 1].start], recipe)
            conversations = _signed(draft, signer(barrier, recipe), barrier.signature_bytes, conversations)
        num_out = _write(draft / "data.jsonl", conversations)
        counts = {**progress(num_records), "records_out": num_out}
        (draft / "counts.json").write_bytes(orjson.dumps(counts))
        tell(counts)


def _entering(folder: RunFolder, unit: Unit) -> Iterator[Conversation]:
    if unit.stage == 0:
        before, name = Unit("read"), f"{unit.shard:05d}.jsonl"
    else:
        before, name = Unit("shard", unit.stage - 1, unit.shard), "data.jsonl"
    with folder.open(before, name) as file:
        for line in file:
            yield load(line)


def _step(
    folder: RunFolder,
    recipe: Recipe,
    unit: Unit,
    index: int,
    conversations: Iterable[Conversation],
    ledger: Ledger,
) -> Iterator[Conversation]:
    """One step, counted. A barrier has judged before: here its verdicts are carried out."""
    entering = counted_in(conversations, ledger.counts)
    if recipe.steps[index].options.barrier:
        leaving = _spared(entering, verdicts(folder, unit.stage - 1, unit.shard), ledger)
    else:
        leaving = step_of(recipe, index)(entering, ledger)
    return counted_out(leaving, ledger.counts)


def step_of(recipe: Recipe, index: int) -> Step:
    """The step for whatever the recipe keeps of a record."""
    choice = recipe.steps[index]
    step: Step = steps.build(choice, recipe)
    return views.for_records(step, choice.options) if recipe.input.keep else step


def signer(barrier: Barrier, recipe: Recipe) -> Callable[[Conversation], bytes]:
    """The barrier's signature of whatever the recipe keeps of a record."""
    return (lambda conversation: barrier.sign(views.signed(conversation))) if recipe.input.keep else barrier.sign


def counted_in(conversations: Iterable[Conversation], counts: StepCounts) -> Iterator[Conversation]:
    for conversation in conversations:
        counts.records_in += 1
        counts.turns_in += len(conversation.turns)
        yield conversation


def counted_out(conversations: Iterable[Conversation], counts: StepCounts) -> Iterator[Conversation]:
    for conversation in conversations:
        counts.records_out += 1
        counts.turns_out += len(conversation.turns)
        yield conversation


def _spared(
    conversations: Iterable[Conversation], ended: dict[int, tuple[str, str]], ledger: Ledger
) -> Iterator[Conversation]:
    for index, conversation in enumerate(conversations):
        if index in ended:
            ledger.reject(conversation, *ended[index])
        else:
            yield conversation


def _signed(
    draft: Path, sign: Callable[[Conversation], bytes], num_bytes: int, conversations: Iterable[Conversation]
) -> Iterator[Conversation]:
    """Beside what passes, a signature and an id each, for the barrier and for what it will say."""
    with (draft / "signatures.bin").open("wb") as signatures, (draft / "ids.jsonl").open("wb") as ids:
        for conversation in conversations:
            signature = sign(conversation)
            assert len(signature) == num_bytes, f"{len(signature)} bytes, not {num_bytes}"
            signatures.write(signature)
            ids.write(orjson.dumps(conversation.id, option=orjson.OPT_APPEND_NEWLINE))
            yield conversation


def _write(path: Path, conversations: Iterable[Conversation]) -> int:
    """The number of records written."""
    number = 0
    with path.open("wb") as file:
        for conversation in conversations:
            file.write(dump(conversation))
            number += 1
    return number
