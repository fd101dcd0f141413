"""Rows of Arrow files and Arrow streams (what `datasets` saves) as records. Only `read.py` calls it."""

from collections.abc import Iterator
from typing import IO, Any

from pipelines.formats.parquet import BATCH_ROWS, rows
from pipelines.formats.records import Found, Unreadable
from services.errors import ConfigurationError

FILE, STREAM = b"ARROW1", b"\xff\xff\xff\xff"


def records(name: str, file: IO[bytes]) -> Iterator[Found]:
    """Every row, in order. Raises ConfigurationError if the file does not describe itself."""
    import pyarrow

    try:
        batches = _batches(file)
        first = next(batches, None)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"input {name} is no readable Arrow file: {error}") from None
    row, batch = 1, first
    try:
        while batch is not None:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield from rows(batch.slice(start, BATCH_ROWS), row + start)
            row += batch.num_rows
            batch = next(batches, None)
    except (pyarrow.ArrowException, OSError) as error:
        yield Unreadable(row, "damaged", f"from row {row} on: {error}")


def _batches(file: IO[bytes]) -> Iterator[Any]:
    import pyarrow

    magic = file.read(len(FILE))
    file.seek(0)
    if magic != FILE:
        yield from pyarrow.ipc.open_stream(file)
        return
    reader = pyarrow.ipc.open_file(file)
    yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
