"""Parquet rows as records, batch by batch. Only `read.py` calls it.

A column that is null in a row is absent from the row's record. A damaged row group becomes one Unreadable; the reader
goes on with the others. A column of JSON (`datasets` makes one where texts and lists of parts are mixed) holds its
values as JSON texts; the record has the values.
"""

from collections.abc import Callable, Iterator
from typing import IO, Any

import orjson

from pipelines.formats.records import MAX_RECORD_BYTES, Found, Parsed, Unreadable
from services.errors import ConfigurationError

BATCH_ROWS = 128
JSON_TYPE = "arrow.json"
BAD_VALUE = (ValueError, OverflowError, LookupError)  # dates beyond the year 9999, zones that nobody knows


_Decode = Callable[[Any], Any]


def records(name: str, file: IO[bytes]) -> Iterator[Found]:
    """Every row, in order. Raises ConfigurationError if the file's end, which describes it, cannot be read."""
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, buffer_size=1_048_576, pre_buffer=False)
    except faults() as error:
        raise ConfigurationError(f"input {name} is no readable Parquet: {error}") from None
    row = 1
    for group in range(table.num_row_groups):
        done = row
        num_rows = table.metadata.row_group(group).num_rows
        try:
            for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
                for found in rows(batch, done):
                    yield found
                    done += 1
        except faults() as error:
            detail = f"rows {done} to {row + num_rows - 1} of row group {group}: {error}"
            yield Unreadable(done, "damaged", detail)
        row += num_rows


def faults() -> tuple[type[Exception], ...]:
    """What pyarrow raises for a file that is broken, or that asks for more memory than there is. `arrow.py` too."""
    import pyarrow

    return pyarrow.ArrowException, OSError, MemoryError, *BAD_VALUE


def rows(batch: Any, first: int) -> Iterator[Found]:
    """The rows of a batch; `first` is the number of its first one. `arrow.py` uses it too."""
    decode = _decoder(batch.schema)
    try:
        values = batch.to_pylist() if batch.nbytes <= MAX_RECORD_BYTES else None
    except BAD_VALUE:
        values = None
    for index in range(batch.num_rows):
        row = first + index
        yield _found(row, decode(values[index])) if values else _alone(row, batch.slice(index, 1), decode)


def _decoder(fields: Any) -> _Decode:
    """For the fields of a schema or a struct: a value of them → the same with its JSON texts read."""
    decoders = {field.name: decode for field in fields if (decode := _decoder_of(field.type))}

    def decoded(value: Any) -> Any:
        return value and {**value, **{name: decode(value[name]) for name, decode in decoders.items()}}

    return decoded if decoders else _unchanged


def _decoder_of(kind: Any) -> _Decode | None:
    """None if values of this type hold no JSON text."""
    from pyarrow import types

    if getattr(kind, "extension_name", "") == JSON_TYPE:
        return _of_json
    if types.is_struct(kind):
        decode = _decoder(kind)
        return None if decode is _unchanged else decode
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    of_one = _decoder_of(kind.value_type) if is_list else None
    return (lambda values: values and [of_one(value) for value in values]) if of_one else None


def _unchanged(value: Any) -> Any:
    return value


def _alone(row: int, batch: Any, decode: _Decode) -> Found:
    """A row by itself: one of its batch is too large, or holds what Python has no value for."""
    if batch.nbytes > MAX_RECORD_BYTES:
        return Unreadable(row, "too_large", f"{batch.nbytes} bytes; a record has at most {MAX_RECORD_BYTES}")
    try:
        return _found(row, decode(batch.to_pylist()[0]))
    except UnicodeDecodeError as error:
        return Unreadable(row, "bad_encoding", f"a text of this row is no UTF-8: {error.reason}")
    except BAD_VALUE as error:
        return _bad_row(row, error)


def _bad_row(row: int, error: Exception) -> Unreadable:
    return Unreadable(row, "bad_row", f"a value of this row cannot be read: {error}")


def _found(row: int, values: dict[str, Any]) -> Found:
    present = {name: value for name, value in values.items() if value is not None}
    try:
        raw = orjson.dumps(present, default=_as_text)
        value = orjson.loads(raw)
    except (*BAD_VALUE, orjson.JSONEncodeError) as error:
        return _bad_row(row, error)
    if isinstance(value.get("extra"), str) and isinstance(value.get("source"), dict):  # as `write.py` writes it
        value["extra"] = _of_json(value["extra"])
    return Parsed(row, value, raw)


def _of_json(text: str | None) -> Any:
    """The value; the text itself if it is no JSON."""
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _as_text(value: Any) -> str:
    """What JSON has no type for: decimals, durations; of bytes (images) only how many."""
    return f"({len(value)} bytes)" if isinstance(value, bytes) else str(value)
