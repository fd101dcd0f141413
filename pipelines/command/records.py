"""The input of the commands that show data: a dataset file of any readable format, or the folder of a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from pipelines.formats.read import read
from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from services.errors import ConfigurationError
from services.jobs.recipe import InputOptions

SPLITS = ("data", "validation")
SUFFIXES = (".jsonl", ".json", ".parquet")
_ALL = InputOptions(unlearnable="keep", keep=("pairs", "labels", "tools", "reasoning"))


def records_of(name: str) -> Iterator[Conversation]:
    """The records of a file or URL, or of all datasets of a run's folder. What cannot be read is left out."""
    for file in dataset_files(name):
        yield from read(file, _ALL, Ledger(), lambda line: None)


def dataset_files(name: str) -> list[str]:
    """A file is itself; a folder its data and validation files. Raises ConfigurationError for another folder."""
    folder = Path(name)
    if not folder.is_dir():
        return [name]
    found = [str(path) for split in SPLITS for suffix in SUFFIXES if (path := folder / (split + suffix)).exists()]
    if not found:
        raise ConfigurationError(f"{name} holds no data.jsonl, data.json or data.parquet: not the folder of a run")
    return found


def report_of(folder: Path) -> dict[str, Any]:
    """The report of a run. Raises ConfigurationError when there is none."""
    try:
        return dict(orjson.loads((folder / "report.json").read_bytes()))
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigurationError(f"{folder} is not the folder of a finished run: {error}") from None


def rejects_of(folder: Path) -> Iterator[dict[str, Any]]:
    """The reject file of a run, line by line."""
    with (folder / "rejects.jsonl").open("rb") as file:
        for line in file:
            yield orjson.loads(line)


def before_and_after(folder: Path) -> Iterator[tuple[Conversation | None, Conversation]]:
    """Each record that a run wrote, with the record of the input that it came from.

    Every dataset of the run is in the order of the input, so one pass over the input does for each. None where the
    input is no longer what it was.
    """
    inputs = report_of(folder)["inputs"]
    for dataset in dataset_files(str(folder)):
        before = (one for name in inputs for one in records_of(name))
        one: Conversation | None = None
        for record in records_of(dataset):
            while one is None or not _came_from(record, one):
                if (one := next(before, None)) is None:
                    break
            yield one, record


def _came_from(record: Conversation, one: Conversation) -> bool:
    """A line may hold many records, and pieces of one record share their origin: ids tell them apart."""
    if (record.source, record.origin_id) != (one.source, one.origin_id):
        return False
    return record.id == one.id or record.id.startswith((f"{one.id}_", f"{one.id}-"))
