"""Runs a recipe on datatrove, for what outgrows a Celery worker's machines: our steps are blocks of its pipelines.

    from datatrove.executor import SlurmPipelineExecutor
    for number, stage in enumerate(stages(recipe, inputs, out)):
        SlurmPipelineExecutor(pipeline=stage.blocks, tasks=stage.tasks, depends=…, …)

Each input is one task: cut a large one into files first. A barrier step (`deduplicate`, `sample`) ends a stage: every
task signs its records, one task judges, and the tasks of the next stage carry the verdicts out. So the stages of one
recipe run one after the other, on any executor of datatrove's whose tasks share the folder `out`:

    out/data/00000.jsonl        the records of each task; joined in order, they are the data.jsonl of our own run,
                                except that ids are not made unique over all tasks
    out/rejects/<step>-00000.jsonl   what each step of each task rejected

datatrove's own blocks may stand between ours: a document's text is that of all turns, and what a block drops is gone. A
block that changes the text changes nothing of the record. Needs `make datatrove`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from pipelines import steps
from pipelines.cleaning.stage import signer, step_of
from pipelines.formats.read import read
from pipelines.formats.write import Writer, suffix
from pipelines.records.conversation import Conversation, as_record, dump, from_record, load
from pipelines.records.ledger import Ledger, StepCounts
from services.jobs.recipe import Recipe

RECORD = "conversation"  # the key in a document's metadata

Documents = Iterable[Document]


@dataclass(frozen=True)
class Stage:
    """One pipeline of datatrove, to be run after the one before it has ended."""

    blocks: Sequence[PipelineStep]
    tasks: int


def stages(recipe: Recipe, inputs: Sequence[str], out: Path) -> list[Stage]:
    """A stage for each stretch of steps between barriers, and one of a single task for each barrier."""
    tasks, made = len(inputs), list[Stage]()
    blocks: list[PipelineStep] = [ReadInput(recipe, inputs, out / "rejects")]
    for index, choice in enumerate(recipe.steps):
        if choice.options.barrier:
            place = out / "work" / f"{index:02d}"
            made.append(Stage([*blocks, SignRecords(recipe, index, place)], tasks))
            made.append(Stage([JudgeRecords(recipe, index, place, tasks)], 1))
            blocks = [SpareRecords(recipe, index, place, out / "rejects")]
        else:
            blocks.append(RunStep(recipe, index, out / "rejects"))
    return [*made, Stage([*blocks, WriteRecords(recipe, out / "data")], tasks)]


class _Block(PipelineStep):  # type: ignore[misc]  # datatrove is untyped, or absent
    """What our blocks share: the recipe, and a name and a reject file of each."""

    type = "chatserver"

    def __init__(self, recipe: Recipe, name: str, rejects: Path) -> None:
        self.name = name
        super().__init__()
        self.recipe = recipe
        self.rejects = rejects

    def rejecting(self, rank: int, stack: ExitStack) -> Callable[[dict[str, Any]], None]:
        """Takes lines of the reject file of this block and task."""
        self.rejects.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context((self.rejects / f"{self.name}-{rank:05d}.jsonl").open("wb"))

        def bad(line: dict[str, Any]) -> None:
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

        return bad

    def count(self, counts: StepCounts) -> None:
        """Into datatrove's statistics, by reason."""
        for kind in ("rejected", "cut", "changed"):
            for reason, number in getattr(counts, kind).items():
                self.stat_update(f"{kind}: {reason}", value=number)


class ReadInput(_Block):
    """The conversations of the task's input."""

    def __init__(self, recipe: Recipe, inputs: Sequence[str], rejects: Path) -> None:
        super().__init__(recipe, "00-read", rejects)
        self.inputs = inputs

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        ledger = Ledger("read")
        with ExitStack() as stack:
            bad = self.rejecting(rank, stack)
            for name in self.inputs[rank::world_size]:
                yield from map(as_document, read(name, self.recipe.input, ledger, bad))
        self.count(ledger.counts)


class RunStep(_Block):
    """One step that judges each record by itself."""

    def __init__(self, recipe: Recipe, index: int, rejects: Path) -> None:
        super().__init__(recipe, f"{index + 1:02d}-{recipe.step_label(index)}", rejects)
        self.index = index

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        with ExitStack() as stack:
            ledger = Ledger(self.recipe.step_label(self.index), self.rejecting(rank, stack))
            yield from map(as_document, self.apply(map(as_conversation, data), ledger, rank))
        self.count(ledger.counts)

    def apply(self, conversations: Iterable[Conversation], ledger: Ledger, rank: int) -> Iterator[Conversation]:
        return step_of(self.recipe, self.index)(conversations, ledger)


class SignRecords(_Block):
    """Keeps the records for the next stage, and a signature and an id of each for the barrier."""

    def __init__(self, recipe: Recipe, index: int, place: Path) -> None:
        super().__init__(recipe, f"{index + 1:02d}-sign", place)
        self.index = index
        self.place = place

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.place.mkdir(parents=True, exist_ok=True)
        sign = signer(steps.build(self.recipe.steps[self.index], self.recipe), self.recipe)
        with ExitStack() as stack:
            records, signatures, ids = (
                stack.enter_context((self.place / f"{rank:05d}.{kind}").open("wb"))
                for kind in ("records", "bin", "ids")
            )
            for document in data:
                conversation = as_conversation(document)
                records.write(dump(conversation))
                signatures.write(sign(conversation))
                ids.write(orjson.dumps(conversation.id, option=orjson.OPT_APPEND_NEWLINE))
                yield document


class JudgeRecords(_Block):
    """The barrier's verdicts, by task of the stage before. It takes and gives no documents."""

    def __init__(self, recipe: Recipe, index: int, place: Path, num_tasks: int) -> None:
        super().__init__(recipe, f"{index + 1:02d}-judge", place)
        self.index = index
        self.place = place
        self.num_tasks = num_tasks

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        barrier: steps.Barrier = steps.build(self.recipe.steps[self.index], self.recipe)
        names = [f"{task:05d}" for task in range(self.num_tasks)]
        judged = barrier.judge([self.place / f"{name}.bin" for name in names])
        for name, ended in zip(names, judged, strict=True):
            said = {str(index): [verdict.reason, verdict.twin] for index, verdict in ended.items()}
            (self.place / f"{name}.verdicts").write_bytes(orjson.dumps(said))
        yield from ()


class SpareRecords(RunStep):
    """The records of a barrier, without those that it rejects."""

    def __init__(self, recipe: Recipe, index: int, place: Path, rejects: Path) -> None:
        super().__init__(recipe, index, rejects)
        self.place = place

    def run(self, data: Documents | None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        with (self.place / f"{rank:05d}.records").open("rb") as file:
            yield from super().run(map(as_document, map(load, file)), rank, world_size)

    def apply(self, conversations: Iterable[Conversation], ledger: Ledger, rank: int) -> Iterator[Conversation]:
        said = orjson.loads((self.place / f"{rank:05d}.verdicts").read_bytes())
        twins = _TwinIds(self.place)
        for index, conversation in enumerate(conversations):
            if (verdict := said.get(str(index))) is None:
                yield conversation
            else:
                reason, twin = verdict
                ledger.reject(conversation, reason, f"kept: {twins.of(*twin)}" if twin else "")


class _TwinIds:
    """The ids of the records of all tasks, each file read once."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._ids: dict[int, list[bytes]] = {}

    def of(self, task: int, index: int) -> str:
        if task not in self._ids:
            self._ids[task] = (self._place / f"{task:05d}.ids").read_bytes().splitlines()
        return str(orjson.loads(self._ids[task][index]))


class WriteRecords(_Block):
    """The records in the recipe's format, a file for each task; those of the split `validation` beside."""

    def __init__(self, recipe: Recipe, place: Path) -> None:
        super().__init__(recipe, "99-write", place)
        self.place = place

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.place.mkdir(parents=True, exist_ok=True)
        kind, full = self.recipe.output.format, bool(self.recipe.input.keep)
        with ExitStack() as stack:
            names = {"train": f"{rank:05d}", "validation": f"validation-{rank:05d}"}
            writers = {
                split: stack.enter_context(Writer(self.place / (name + suffix(kind)), kind, full=full))
                for split, name in names.items()
            }
            for document in data:
                conversation = as_conversation(document)
                writers[conversation.split or "train"].write(conversation)
                yield document


def as_document(conversation: Conversation) -> Document:
    text = "\n\n".join(turn.text for turn in conversation.turns)
    return Document(text, conversation.id, metadata={RECORD: as_record(conversation)})


def as_conversation(document: Document) -> Conversation:
    return from_record(document.metadata[RECORD])
