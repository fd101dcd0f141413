"""CSV and TSV rows as records: the header names the keys, every value is a text. Only `read.py` calls it.

A row that has more or fewer fields than the header is rejected; so is a row with bytes that are no UTF-8, or with too
many bytes. Empty cells stay empty texts; a column without a name (the index that pandas writes) is left out.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator

import orjson

from pipelines.formats.files import Blocks
from pipelines.formats.records import MAX_RAW_BYTES, MAX_RECORD_BYTES, Found, Parsed, Unreadable
from services.errors import ConfigurationError

NO_UTF8 = re.compile("[\udc80-\udcff]")
BY_NAME = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
COMPRESSED = (".gz", ".zst", ".zstd")
KNOWN = frozenset(
    ("instruction", "input", "output", "prompt", "response", "completion", "question", "answer", "context", "system",
     "text", "conversations", "conversation", "messages", "chosen", "rejected", "label", "id")
)  # fmt: skip
FEWEST_KNOWN = 2


def delimiter(name: str, start: bytes) -> str:
    """What parts the fields of a file: by its header, else by its name; empty for a file of another kind."""
    header = start.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("utf-8", "replace").strip("\r")
    for one in ",\t;":
        fields = _fields(header, one)
        if len(fields) > 1 and len(KNOWN & {field.strip().lower() for field in fields}) >= FEWEST_KNOWN:
            return one
    lower = name.lower()
    for suffix in COMPRESSED:
        lower = lower.removesuffix(suffix)
    suffix = next((suffix for suffix in BY_NAME if lower.endswith(suffix)), "")
    return BY_NAME[suffix] if suffix and not start.lstrip().startswith((b"[", b"{")) else ""


def _fields(line: str, one: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=one, strict=True), [])
    except csv.Error:
        return []


def records(name: str, blocks: Blocks, parts: str) -> Iterator[Found]:
    """Every row, in order. Raises ConfigurationError for a header that names no columns."""
    csv.field_size_limit(MAX_RECORD_BYTES)  # of the process: the default refuses a long conversation
    lines = _Lines(blocks)
    rows = csv.reader(lines, delimiter=parts, strict=True)
    header = _header(name, rows)
    while True:
        line = lines.begin_row()
        try:
            if row := next(rows):
                yield _row(line, header, row)
        except StopIteration:
            break
        except _TooLarge as error:
            yield Unreadable.too_large(line, error.raw, error.num_bytes)
        except csv.Error as error:
            reason = "truncated" if "unexpected end" in str(error) else "bad_row"
            yield Unreadable(line, reason, f"{error}; from line {line} to line {lines.number}")
    if blocks.damage:
        yield Unreadable(line, blocks.damage.reason, f"from line {line} on: {blocks.damage.detail}")


def _header(name: str, rows: Iterator[list[str]]) -> list[str]:
    try:
        header = next(rows, [])
    except (csv.Error, _TooLarge) as error:
        remedy = "the first line must name the columns"
        raise ConfigurationError(f"input {name}: the header cannot be read: {error}; {remedy}") from None
    if broken := next(filter(NO_UTF8.search, header), ""):
        raise ConfigurationError(f"input {name}: the column {broken!r:.80} is no UTF-8; convert the file to UTF-8")
    if twice := sorted(column for column, number in Counter(header).items() if column and number > 1):
        raise ConfigurationError(f"input {name}: the column {twice[0]!r:.80} stands twice in the header")
    return header


class _TooLarge(Exception):
    """`raw` is the beginning of the line that was one too many."""

    def __init__(self, raw: bytes, num_bytes: int) -> None:
        super().__init__(f"{num_bytes} bytes; a row has at most {MAX_RECORD_BYTES}")
        self.raw = raw
        self.num_bytes = num_bytes


class _Lines:
    """The lines of a text. Raises _TooLarge where those of one row are too many bytes, and goes on behind them."""

    def __init__(self, blocks: Blocks) -> None:
        self.number = 0  # of lines so far
        self._lines = _split(blocks)
        self._num_bytes = 0  # of the row

    def begin_row(self) -> int:
        """The line at which the next row begins."""
        self._num_bytes = 0
        return self.number + 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line, dropped = next(self._lines)
        self.number += 1
        self._num_bytes += len(line) + dropped
        if self._num_bytes > MAX_RECORD_BYTES:
            raise _TooLarge(line, self._num_bytes)
        return _text(line.removeprefix(b"\xef\xbb\xbf") if self.number == 1 else line)


def _split(blocks: Blocks) -> Iterator[tuple[bytes, int]]:
    """Each line, and how many of its bytes were dropped: of one that is too large only the beginning is kept."""
    rest, dropped = b"", 0
    while block := blocks.read():
        first, *others = block.split(b"\n")
        rest += first
        if others:
            yield rest + b"\n", dropped
            yield from ((line + b"\n", 0) for line in others[:-1])
            rest, dropped = others[-1], 0
        if dropped + len(rest) > MAX_RECORD_BYTES:
            dropped += max(0, len(rest) - MAX_RAW_BYTES)
            rest = rest[:MAX_RAW_BYTES]
    if rest and not blocks.damage:  # else its last field may be cut
        yield rest, dropped


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _row(line: int, header: list[str], row: list[str]) -> Found:
    if len(row) != len(header):
        return Unreadable.of(
            line, "bad_row", f"{len(row)} fields; the header has {len(header)}", _raw(row[:MAX_RAW_BYTES])
        )
    if any(NO_UTF8.search(cell) for cell in row):
        return Unreadable.of(line, "bad_encoding", "a field of this row is no UTF-8", _raw(row))
    return Parsed(line, {column: cell for column, cell in zip(header, row, strict=True) if column}, _raw(row))


def _raw(row: list[str]) -> bytes:
    return orjson.dumps([NO_UTF8.sub("\ufffd", cell) for cell in row])
