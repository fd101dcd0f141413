"""One record as it stands in a file, before its shape is known: its value, or why there is none. Readers make it."""

from dataclasses import dataclass
from typing import Any

MAX_RECORD_BYTES = 64 * 1_048_576  # a longer one is rejected, so that memory stays bounded
MAX_RAW_BYTES = 1_048_576  # of a rejected record that go into the reject file
NOTHING: tuple[Any, ...] = (None, "", [], {})  # said by such a value of a turn; Parquet gives every turn every key


@dataclass(frozen=True, slots=True)
class Parsed:
    """A JSON value (or Parquet row). `line` (row) counts from 1."""

    line: int
    value: Any
    raw: bytes = b""
    repaired: bool = False  # halves of surrogate pairs became U+FFFD
    member: str = ""  # the file of the archive that holds it
    emptied: int = 0  # numbers that are none (NaN) became null


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part of the file that is no record. `raw` is its beginning, at most MAX_RAW_BYTES of `num_bytes`."""

    line: int
    reason: str
    detail: str
    raw: bytes = b""
    num_bytes: int = 0
    member: str = ""

    @classmethod
    def of(cls, line: int, reason: str, detail: str, raw: bytes) -> "Unreadable":
        return cls(line, reason, detail, raw[:MAX_RAW_BYTES], len(raw))

    @classmethod
    def too_large(cls, line: int, raw: bytes, num_bytes: int) -> "Unreadable":
        """`raw`: at least its beginning."""
        detail = f"{num_bytes} bytes; a record has at most {MAX_RECORD_BYTES}"
        return cls(line, "too_large", detail, raw[:MAX_RAW_BYTES], num_bytes)


Found = Parsed | Unreadable


class BadRecord(Exception):
    """The record is JSON but no conversation. `reason` is a reason code; the message says what is wrong, and where."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
