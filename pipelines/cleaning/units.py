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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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


class Folder:
    """The `.work` folder of a run."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.work = out / ".work"

    def of(self, unit: Unit) -> Path:
        return self.work / unit.name

    @property
    def finished(self) -> Path:
        return self.work / "finished.json"

    def done(self, unit: Unit) -> bool:
        return self.finished.exists() or (unit.kind != "finish" and self.of(unit).exists())

    @contextlib.contextmanager
    def draft(self, unit: Unit) -> Iterator[Path]:
        """A folder to write into, gone at the end; what is in it then is on disk. The caller holds the unit's lock."""
        for left in self.work.glob(f"tmp-{unit.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        with files.draft(self.work, f"tmp-{unit.name}-") as draft:
            yield draft

    @contextlib.contextmanager
    def making(self, unit: Unit) -> Iterator[Path]:
        """A draft that becomes the unit's folder when the block ends well."""
        with self.draft(unit) as draft:
            yield draft
            files.publish(draft, self.of(unit))

    @contextlib.contextmanager
    def lock(self, unit: Unit) -> Iterator[bool]:
        """Holds the unit for this process while inside; yields False if another one holds it."""
        locks = self.work / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with files.try_lock(locks / unit.name) as held:
            yield held is not None

    @property
    def claimed(self) -> bool:
        return (self.work / "run.json").exists()

    def claim(self, belongs: dict[str, Any]) -> None:
        """Make the folder for this run. Raises ConfigurationError if it is another one's."""
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            files.write_json(self.work / "run.json", belongs, only_new=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {self.out} cannot be used: {error}") from None
        self.check(belongs)

    def check(self, belongs: dict[str, Any]) -> None:
        """Raises ConfigurationError if the folder is that of another run."""
        try:
            found = orjson.loads((self.work / "run.json").read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise ConfigurationError(f"the folder {self.out} cannot be used: {error}") from None
        different = sorted(key for key in belongs if found.get(key) != belongs[key])
        if different:
            said = " and ".join(f"{'other' if key.endswith('s') else 'another'} {key}" for key in different)
            raise ConfigurationError(f"{self.out} holds a run with {said}; choose another folder, or remove it")

    def clear(self) -> None:
        """Remove what finished work no longer needs."""
        for path in self.work.iterdir():
            if path.is_dir() and path.name != "locks":
                shutil.rmtree(path, ignore_errors=True)


def check_space(folder: Path) -> None:
    """Raises StorageFull when the disk is nearly full: Redis may write to the same one."""
    free = shutil.disk_usage(folder).free
    if free < RESERVE_BYTES:
        raise StorageFull(f"{folder}: {free / 2**20:.0f} MiB are free, {RESERVE_BYTES >> 20} stay so; make room")
