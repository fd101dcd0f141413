"""Reads one input as conversations. The content tells format, compression and shape.

`pipelines/cleaning/reading.py` reads a run's inputs with this module, steps read evaluation sets, and the command reads
what a user looks at. A record that cannot be read is counted and passed to `bad` as a line of the reject file; it never
ends the run. Reasons:

    truncated, damaged       the file or a record ends early; a compressed stream, row group cannot be read further
    bad_json, bad_encoding   no JSON; no UTF-8
    duplicate_key            a key stands twice in an object
    not_finite, too_deep     NaN, Infinity or a number beyond them; more nesting than can be written again
    too_large                over 64 MiB
    trailing_data            text after the end of the array
    not_an_object, bad_shape JSON, but no conversation
    tool_calls, zero_weight  a turn that calls a tool; an answer of weight 0, not to be trained on
    negative_example, media, cut_short  what else nobody should learn (`unlearnable.py`)

Kept: half surrogates as U+FFFD, counted as `lone_surrogate` among the changes.
"""

from collections.abc import Callable, Iterator
from typing import IO, Any

from pipelines.formats import files, json_records, parquet
from pipelines.formats.records import BadRecord, Found, Unreadable
from pipelines.formats.shapes import conversation
from pipelines.formats.unlearnable import check
from pipelines.records.conversation import Conversation, Source
from pipelines.records.ledger import Ledger
from services.jobs.recipe import InputOptions

Bad = Callable[[dict[str, Any]], None]


def read(location: str, options: InputOptions, ledger: Ledger, bad: Bad, *, name: str = "") -> Iterator[Conversation]:
    """The conversations of a path or URL, in order. Raises ConfigurationError if it cannot be opened.

    `name` is what records call their source; the location itself if there is none.
    """
    name = name or location
    for position, found in enumerate(values(location)):
        ledger.counts.records_in += 1
        made = _conversation(found, options, Source(name, found.line), position)
        if isinstance(made, Unreadable):
            ledger.counts.rejected[made.reason] += 1
            bad(_line(name, made))
            continue
        if not isinstance(found, Unreadable) and found.repaired:
            ledger.changed("lone_surrogate")
        ledger.counts.records_out += 1
        yield made


def values(location: str) -> Iterator[Found]:
    """Every record of a path or URL before its shape is known. Raises ConfigurationError if it cannot be opened."""
    with files.open_input(location) as file:
        yield from _records(location, file)


def _records(name: str, file: IO[bytes]) -> Iterator[Found]:
    how = files.compression(name, file)
    blocks = files.Blocks(files.blocks(file, how))
    if not blocks.peek().startswith(files.PARQUET):
        yield from json_records.records(blocks)
        return
    with files.spool(name, blocks) if how else file as seekable:
        seekable.seek(0)
        yield from parquet.records(name, seekable)


def _conversation(found: Found, options: InputOptions, source: Source, position: int) -> Conversation | Unreadable:
    if isinstance(found, Unreadable):
        return found
    try:
        made = conversation(found.value, options.format, source, position)
        return check(made) if options.unlearnable == "reject" else made
    except BadRecord as error:
        return Unreadable.of(found.line, error.reason, str(error), found.raw)


def _line(name: str, found: Unreadable) -> dict[str, Any]:
    cut = (
        f"; its first {len(found.raw)} of {found.num_bytes} bytes are kept" if found.num_bytes > len(found.raw) else ""
    )
    return {
        "step": "read",
        "reason": found.reason,
        "detail": found.detail + cut,
        "source": [name, found.line],
        "raw": found.raw.decode("utf-8", "backslashreplace"),
    }
