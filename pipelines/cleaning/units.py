"""The units of work of one cleaning run. The run's folder alone says which of them are done.

    out/                        what the user gets: data.jsonl, rejects.jsonl, report.json, …
    out/.work/run.json          which recipe and inputs the folder belongs to
    out/.work/read/             00000.jsonl … the input as conversations, cut into shards; rejects.jsonl, counts.json
    out/.work/shard-0-00000/    the output of stage 0 for shard 0: data.jsonl, rejects.jsonl, counts.json, signatures
    out/.work/judge-0/          00000.json … the verdicts of the barrier after stage 0 for each shard
    out/.work/finished.json     the counts of everything; written last, then the rest of .work is deleted

A unit writes into a folder `tmp-…` and renames it when all is on disk, so a folder with a unit's name is complete.
Nothing else says that a unit is done. The process that works on a unit holds the unit's lock
(`services/machine/files.py` says on which file systems locks work).
"""

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import orjson

from services.errors import ConfigurationError, StorageFull
from services.machine import files

Kind = Literal["read", "shard", "judge", "finish"]

RESERVE_BYTES = 1 << 29  # of the disk that are left to others

_NAME = re.compile(r"(read|finish)|(shard)-(\d+)-(\d+)|(judge)-(\d+)")


@dataclass(frozen=True, order=True)
class Unit:
    """One piece of work. `stage` numbers the stages between barriers, `shard` the shards, both from 0."""

    kind: Kind
    stage: int = 0
    shard: int = 0

    @property
    def name(self) -> str:
        if self.kind == "shard":
            return f"shard-{self.stage}-{self.shard:05d}"
        return f"judge-{self.stage}" if self.kind == "judge" else self.kind

    @classmethod
    def parse(cls, name: str) -> "Unit":
        """The inverse of `name`. Raises ConfigurationError."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise ConfigurationError(f"{name!r} is no unit of cleaning")
        whole, shard, stage, number, _, judged = match.groups()
        if shard:
            return cls("shard", int(stage), int(number))
        return cls("read" if whole == "read" else "finish") if whole else cls("judge", int(judged))


class RunFolder(Protocol):
    """Where a run lives: a folder of a disk (`Folder`), or a prefix of an object store (`store_folder.py`)."""

    out: str

    def done_names(self) -> frozenset[str]:
        """The names of all units that are done, but for `finish`."""

    def done(self, unit: Unit) -> bool: ...

    def finished_counts(self) -> dict[str, Any] | None:
        """The counts of every unit, once the run is finished."""

    def open(self, unit: Unit, name: str) -> IO[bytes]:
        """A file of a done unit. Raises FileNotFoundError."""

    def local(self, units: Sequence[Unit], name: str) -> AbstractContextManager[list[Path]]:
        """The same file of several units, on the disk."""

    def draft(self, unit: Unit) -> AbstractContextManager[Path]:
        """A folder of the disk to write into, gone at the end. The caller holds the unit's lock."""

    def making(self, unit: Unit) -> AbstractContextManager[Path]:
        """A draft that becomes the unit's files when the block ends well."""

    def finish(self, draft: Path, counts: dict[str, Any]) -> None:
        """The files of the draft become the user's; then the run is finished, and what it no longer needs goes."""

    def result(self, name: str) -> bytes:
        """A file of the user's, of a finished run."""

    def lock(self, unit: Unit) -> AbstractContextManager[bool]:
        """Holds the unit for this process while inside; yields False if another one holds it."""

    def is_held(self, unit: Unit) -> bool:
        """A process holds the unit."""

    @property
    def claimed(self) -> bool: ...

    def claim(self, belongs: dict[str, Any]) -> None:
        """Make the folder for this run. Raises ConfigurationError if it is another one's."""

    def check(self, belongs: dict[str, Any]) -> None:
        """Raises ConfigurationError if the folder is that of another run."""


class Folder:
    """The RunFolder of a disk."""

    def __init__(self, out: Path) -> None:
        self.out = str(out)
        self.work = out / ".work"

    def _of(self, unit: Unit) -> Path:
        return self.work / unit.name

    @property
    def _finished(self) -> Path:
        return self.work / "finished.json"

    def done_names(self) -> frozenset[str]:
        return frozenset(path.name for path in self.work.glob("*") if path.is_dir())

    def done(self, unit: Unit) -> bool:
        return self._finished.exists() or (unit.kind != "finish" and self._of(unit).exists())

    def finished_counts(self) -> dict[str, Any] | None:
        return dict(orjson.loads(self._finished.read_bytes())["units"]) if self._finished.exists() else None

    def open(self, unit: Unit, name: str) -> IO[bytes]:
        return (self._of(unit) / name).open("rb")

    @contextlib.contextmanager
    def local(self, units: Sequence[Unit], name: str) -> Iterator[list[Path]]:
        yield [self._of(unit) / name for unit in units]

    @contextlib.contextmanager
    def draft(self, unit: Unit) -> Iterator[Path]:
        for left in self.work.glob(f"tmp-{unit.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        with files.draft(self.work, f"tmp-{unit.name}-") as draft:
            yield draft

    @contextlib.contextmanager
    def making(self, unit: Unit) -> Iterator[Path]:
        with self.draft(unit) as draft:
            yield draft
            files.publish(draft, self._of(unit))

    def finish(self, draft: Path, counts: dict[str, Any]) -> None:
        files.sync_all(draft)
        for path in sorted(draft.iterdir()):
            path.replace(Path(self.out) / path.name)
        files.write_json(self._finished, {"units": counts})
        for path in self.work.iterdir():
            if path.is_dir() and path.name != "locks":
                shutil.rmtree(path, ignore_errors=True)

    def result(self, name: str) -> bytes:
        return (Path(self.out) / name).read_bytes()

    @contextlib.contextmanager
    def lock(self, unit: Unit) -> Iterator[bool]:
        locks = self.work / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with files.try_lock(locks / unit.name) as held:
            yield held is not None

    def is_held(self, unit: Unit) -> bool:
        with self.lock(unit) as free:
            return not free

    @property
    def claimed(self) -> bool:
        return (self.work / "run.json").exists()

    def claim(self, belongs: dict[str, Any]) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            files.write_json(self.work / "run.json", belongs, only_new=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {self.out} cannot be used: {error}") from None
        self.check(belongs)

    def check(self, belongs: dict[str, Any]) -> None:
        try:
            found = orjson.loads((self.work / "run.json").read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise ConfigurationError(f"the folder {self.out} cannot be used: {error}") from None
        check_same_run(self.out, found, belongs)


def check_same_run(out: str, found: dict[str, Any], belongs: dict[str, Any]) -> None:
    """Raises ConfigurationError if what a folder says of its run is not what this run says of itself."""
    different = sorted(key for key in belongs if found.get(key) != belongs[key])
    if different:
        said = " and ".join(f"{'other' if key.endswith('s') else 'another'} {key}" for key in different)
        raise ConfigurationError(f"{out} holds a run with {said}; choose another folder, or remove it")


def check_space(folder: Path) -> None:
    """Raises StorageFull when the disk is nearly full: Redis may write to the same one."""
    free = shutil.disk_usage(folder).free
    if free < RESERVE_BYTES:
        raise StorageFull(f"{folder}: {free / 2**20:.0f} MiB are free, {RESERVE_BYTES >> 20} stay so; make room")
