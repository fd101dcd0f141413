"""One cleaning run: recipe + inputs + folder → units of work, each done once, in any process, resumable at any point.

`chatserver clean run` does the units in its own processes, Celery's tasks (`pipelines/celery/cleaning_tasks.py`) do
them on many machines; both write the same bytes.

    run = Cleaning(Path("cleaned"), read_recipe(Path("infra/recipes/vicuna.yaml")), ["sharegpt.json"])
    run.prepare()
    while units := run.todo():
        for unit in units:
            run.do(unit)
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from pipelines.cleaning import finish, judge, reading, stage
from pipelines.cleaning.store_folder import run_folder
from pipelines.cleaning.units import Unit
from pipelines.formats.read import values
from services.errors import ConfigurationError
from services.jobs.recipe import Recipe, checked_input

Progress = dict[str, Any]
Watch = Callable[[Progress], None]

CODE_VERSION = 3  # raise it when a step begins to give other output: a half-done run is then not continued


class Cleaning:
    """A run and its folder. Cheap to make; every process makes an object of its own."""

    def __init__(self, out: Path | str, recipe: Recipe, inputs: Sequence[str], labels: Sequence[str] = ()) -> None:
        """`out`: a path, or an `s3://` URL. `labels`: what people call each input, if not its name."""
        self.recipe = recipe
        self.inputs = tuple(map(checked_input, inputs))
        self.names = tuple(_distinct(labels if len(labels) == len(inputs) else inputs))
        self.folder = run_folder(checked_input(out) if isinstance(out, str) else out)
        self.stages = _stretches(recipe)

    def prepare(self) -> None:
        """Make the folder. Raises ConfigurationError if it belongs to another run, or an input cannot be opened."""
        if not self.inputs:
            raise ConfigurationError("no input: name at least one file or URL")
        if not self.folder.claimed:
            for name in self.inputs:
                next(values(name), None)  # a name with a typing error claims nothing
        self.folder.claim(
            {
                "recipe": self.recipe.digest,
                "inputs": [[name, *_fingerprint(name)] for name in (*self.inputs, *self.recipe.files_named())],
                "version": CODE_VERSION,
            }
        )

    def todo(self) -> list[Unit]:
        """Every unit that is not done and could be done now; empty when the run is finished."""
        done = self.folder.done_names()
        for units in self._waves():
            if left := [unit for unit in units if unit.name not in done]:
                return left
        return []

    def _waves(self) -> Iterator[list[Unit]]:
        """The units in the order of their dependence; those of one wave do not depend on each other."""
        if self.finished:
            return
        yield [Unit("read")]
        for number in range(len(self.stages)):
            if number:
                yield [Unit("judge", number - 1)]
            yield [Unit("shard", number, shard) for shard in range(self.num_shards)]
        yield [Unit("finish")]

    @cached_property
    def num_shards(self) -> int:
        """Known once the input is read."""
        return len(self.counts(Unit("read"))["shards"])

    def num_units(self) -> int:
        """Of the whole run; 0 before the input is read."""
        if not self.folder.done(Unit("read")) or self.finished:
            return 0
        return sum(len(units) for units in self._waves())

    @property
    def finished(self) -> bool:
        return self.folder.done(Unit("finish"))

    def done(self, unit: Unit) -> bool:
        return self.folder.done(unit)

    def lock(self, unit: Unit) -> AbstractContextManager[bool]:
        """Holds the unit for this process; yields False if another one holds it."""
        return self.folder.lock(unit)

    def is_held(self, unit: Unit) -> bool:
        """A process works on the unit."""
        return self.folder.is_held(unit)

    def do(self, unit: Unit, watch: Watch | None = None) -> None:
        """Do one unit, unless it is done. `watch` sees the progress about every 100 records, and may raise to stop."""
        if self.folder.done(unit):
            return
        self.folder.check({"version": CODE_VERSION})  # a task may be older than this program
        tell = watch or (lambda progress: None)
        if unit.kind == "read":
            reading.read_all(self.folder, self.recipe, dict(zip(self.names, self.inputs, strict=True)), tell)
        elif unit.kind == "shard":
            stage.run(self.folder, self.recipe, self.stages, unit, self._size(unit), tell)
        elif unit.kind == "judge":
            judge.run(self.folder, self.recipe, self.stages, unit, self.num_shards)
        else:
            finish.run(self.folder, self.recipe, self.names, self.stages, self.num_shards, tell)

    def _size(self, unit: Unit) -> int:
        """How many records enter a shard."""
        if unit.stage == 0:
            return int(self.counts(Unit("read"))["shards"][unit.shard])
        return int(self.counts(Unit("shard", unit.stage - 1, unit.shard))["records_out"])

    def counts(self, unit: Unit) -> Progress:
        """What a done unit wrote of itself: the last progress that it told. Empty for a judge."""
        if (finished := self.folder.finished_counts()) is not None:
            return dict(finished.get(unit.name, {}))
        if not self.folder.done(unit):
            return {}
        try:
            with self.folder.open(unit, "counts.json") as file:
                return dict(orjson.loads(file.read()))
        except FileNotFoundError:
            return {}


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """The second `a.json` is `a.json (2)`."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _stretches(recipe: Recipe) -> list[range]:
    """The steps of each stage, as indices into the recipe: a barrier is the first step of the stage after it."""
    barriers = [index for index, step in enumerate(recipe.steps) if step.options.barrier]
    return [range(start, end) for start, end in pairwise([0, *barriers, len(recipe.steps)])]


def _fingerprint(name: str) -> list[int]:
    """Size and time of a local file: a run does not go on with another one. Nothing of a URL."""
    path = Path(name)
    if "://" in name or not path.exists():
        return []
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
