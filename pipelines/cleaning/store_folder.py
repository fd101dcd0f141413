"""The RunFolder of an object store, for machines that share no disk. `cleaning.py` makes one of an `s3://` URL.

    <url>/.work/run.json           which recipe and inputs the prefix belongs to
    <url>/.work/<unit>/…           the files of a unit
    <url>/.work/done/<unit>        written last: the unit is done
    <url>/.work/locks/<unit>       the unit's lease (`leases.py`)
    <url>/.work/finished.json      the counts of everything; written last, then the rest goes

Nothing can be renamed here, so a unit is made on the disk of its machine, then uploaded, then marked. Two processes may
upload the same unit, one of them held up until its lease expired: both write the same bytes.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import orjson

from pipelines.cleaning.leases import Lease
from pipelines.cleaning.object_store import ObjectStore
from pipelines.cleaning.units import Folder, RunFolder, Unit, check_same_run
from services.errors import ConfigurationError

WORK = ".work"
KEPT = ("run.json", "finished.json")  # of a finished run


def run_folder(out: Path | str) -> RunFolder:
    """Of a path or a URL. Raises ConfigurationError for a URL that no run can live at."""
    return StoreFolder(ObjectStore(out)) if isinstance(out, str) and "://" in out else Folder(Path(out))


class StoreFolder:
    """See RunFolder."""

    def __init__(self, store: ObjectStore) -> None:
        self.out = store.url
        self._store = store

    def done_names(self) -> frozenset[str]:
        return frozenset(self._store.names(f"{WORK}/done"))

    def done(self, unit: Unit) -> bool:
        if unit.kind != "finish" and self._store.look(f"{WORK}/done/{unit.name}"):
            return True
        return self._store.look(f"{WORK}/finished.json") is not None

    def finished_counts(self) -> dict[str, Any] | None:
        found = self._store.read(f"{WORK}/finished.json")
        return dict(orjson.loads(found)["units"]) if found else None

    def open(self, unit: Unit, name: str) -> IO[bytes]:
        return self._store.open(f"{WORK}/{unit.name}/{name}")

    @contextlib.contextmanager
    def local(self, units: Sequence[Unit], name: str) -> Iterator[list[Path]]:
        with tempfile.TemporaryDirectory(prefix="chatserver-clean-") as folder:
            paths = [Path(folder) / f"{number:05d}" for number in range(len(units))]
            for unit, path in zip(units, paths, strict=True):
                self._store.download(f"{WORK}/{unit.name}/{name}", path)
            yield paths

    @contextlib.contextmanager
    def draft(self, unit: Unit) -> Iterator[Path]:
        self._store.abort_uploads(f"{WORK}/{unit.name}")
        with tempfile.TemporaryDirectory(prefix=f"chatserver-clean-{unit.name}-") as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def making(self, unit: Unit) -> Iterator[Path]:
        with self.draft(unit) as draft:
            yield draft
            for path in sorted(draft.iterdir()):
                self._store.upload(path, f"{WORK}/{unit.name}/{path.name}")
            self._store.write(f"{WORK}/done/{unit.name}", b"")

    def finish(self, draft: Path, counts: dict[str, Any]) -> None:
        for path in sorted(draft.iterdir()):
            self._store.upload(path, path.name)
        self._store.write(f"{WORK}/finished.json", orjson.dumps({"units": counts}))
        self._store.remove(WORK, but=KEPT)
        self._store.abort_uploads("")

    def result(self, name: str) -> bytes:
        found = self._store.read(name)
        if found is None:
            raise FileNotFoundError(f"{self.out}/{name}")
        return found

    def lock(self, unit: Unit) -> AbstractContextManager[bool]:
        return self._lease(unit).taken()

    def is_held(self, unit: Unit) -> bool:
        return self._lease(unit).is_held()

    def _lease(self, unit: Unit) -> Lease:
        return Lease(self._store, f"{WORK}/locks/{unit.name}")

    @property
    def claimed(self) -> bool:
        return self._store.look(f"{WORK}/run.json") is not None

    def claim(self, belongs: dict[str, Any]) -> None:
        try:
            self._store.create(f"{WORK}/run.json", orjson.dumps(belongs))
        except OSError as error:
            raise self._unusable(error) from None
        self.check(belongs)

    def check(self, belongs: dict[str, Any]) -> None:
        found = self._store.read(f"{WORK}/run.json")
        if found is None:
            raise self._unusable("it has no .work/run.json")
        check_same_run(self.out, orjson.loads(found), belongs)

    def _unusable(self, why: object) -> ConfigurationError:
        return ConfigurationError(f"the folder {self.out} cannot be used: {why}")
