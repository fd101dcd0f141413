"""CSV and TSV rows as records: the header names the keys, every value is a text. Only `read.py` calls it.

A row that has more or fewer fields than the header is rejected; so is a row with bytes that are no UTF-8. Empty cells
stay empty texts; a column without a name (the index that pandas writes) is left out.
"""

import csv
import re
from collections.abc import Iterator

import orjson

from pipelines.formats.files import Blocks
from pipelines.formats.records import MAX_RECORD_BYTES, Found, Parsed, Unreadable
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
    """Every row, in order. Raises ConfigurationError if two columns have one name."""
    csv.field_size_limit(MAX_RECORD_BYTES)  # of the process: the default refuses a long conversation
    rows = csv.reader(_lines(blocks), delimiter=parts, strict=True)
    header = next(rows, [])
    if twice := sorted({column for column in header if column and header.count(column) > 1}):
        raise ConfigurationError(f"input {name}: the column {twice[0]!r:.80} stands twice in the header")
    line = rows.line_num + 1
    while True:
        try:
            row = next(rows)
            if row:
                yield _row(line, header, row)
        except StopIteration:
            break
        except csv.Error as error:
            reason = "truncated" if "unexpected end" in str(error) else "bad_row"
            yield Unreadable(line, reason, f"{error}; from line {line} to line {rows.line_num}")
        line = rows.line_num + 1
    if blocks.damage:
        yield Unreadable(line, blocks.damage.reason, f"from line {line} on: {blocks.damage.detail}")


def _lines(blocks: Blocks) -> Iterator[str]:
    rest, first = b"", True
    while block := blocks.read():
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield _text(line.removeprefix(b"\xef\xbb\xbf") if first else line) + "\n"
            first = False
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _row(line: int, header: list[str], row: list[str]) -> Found:
    raw = orjson.dumps([NO_UTF8.sub("\ufffd", cell) for cell in row])
    if any(NO_UTF8.search(cell) for cell in row):
        return Unreadable.of(line, "bad_encoding", "a field of this row is no UTF-8", raw)
    if len(row) != len(header):
        return Unreadable.of(line, "bad_row", f"{len(row)} fields; the header has {len(header)}", raw)
    return Parsed(line, {column: cell for column, cell in zip(header, row, strict=True) if column}, raw)
