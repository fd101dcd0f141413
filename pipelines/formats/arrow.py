"""Rows of Arrow files and Arrow streams (what `datasets` saves) as records. Only `read.py` calls it."""

from collections.abc import Iterator
from typing import IO, Any

from pipelines.formats.parquet import BATCH_ROWS, faults, rows
from pipelines.formats.records import Found, Unreadable
from services.errors import ConfigurationError

FILE, STREAM = b"ARROW1", b"\xff\xff\xff\xff"
MAX_ROWS_OF_BYTE = 8  # a value takes a bit at least; a column of nulls takes nothing, and may claim any number
NO_UTF8 = "UTF8"  # stands in what pyarrow says of a text that is none


def records(name: str, file: IO[bytes]) -> Iterator[Found]:
    """Every row, in order. Raises ConfigurationError if the file does not describe itself."""
    try:
        batches = _batches(file)
        first = next(batches, None)
    except faults() as error:
        raise ConfigurationError(f"input {name} is no readable Arrow file: {error}") from None
    row, batch = 1, first
    try:
        while batch is not None:
            yield from _valid_rows(batch, row)
            row += batch.num_rows
            batch = next(batches, None)
    except faults() as error:
        yield Unreadable(row, "damaged", f"from row {row} on: {error}")


def _valid_rows(batch: Any, first: int) -> Iterator[Found]:
    """The rows, of which none is read before it is checked: behind a wrong offset pyarrow reads memory of others."""
    if batch.num_rows > MAX_ROWS_OF_BYTE * (batch.nbytes + 1):
        told = f"{batch.num_rows} rows from row {first} on are claimed, and {batch.nbytes} bytes are there for them"
        yield Unreadable(first, "damaged", told)
        return
    fault = _fault(batch)
    if fault and not _is_of_a_row(batch, fault):
        yield Unreadable(first, "damaged", f"rows {first} to {first + batch.num_rows - 1}: {fault}")
        return
    num_rows = 1 if fault else BATCH_ROWS
    for start in range(0, batch.num_rows, num_rows):
        part = batch.slice(start, num_rows)
        if fault and (told := _fault(part)):
            yield Unreadable(first + start, "bad_encoding" if NO_UTF8 in told else "damaged", f"this row: {told}")
        else:
            yield from rows(part, first + start)


def _fault(batch: Any) -> str:
    try:
        batch.validate(full=True)
    except faults() as error:
        return str(error) or type(error).__name__
    return ""


def _is_of_a_row(batch: Any, fault: str) -> bool:
    """Whether the other rows can be had. A check of one row checks all of a dictionary, so there it costs too much."""
    return NO_UTF8 in fault and not any("dictionary" in str(field.type) for field in batch.schema)


def _batches(file: IO[bytes]) -> Iterator[Any]:
    import pyarrow

    magic = file.read(len(FILE))
    file.seek(0)
    if magic != FILE:
        yield from pyarrow.ipc.open_stream(file)
        return
    reader = pyarrow.ipc.open_file(file)
    yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
