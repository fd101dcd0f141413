"""Reads one input as conversations. The content tells format, compression and shape.

`pipelines/cleaning/reading.py` reads a run's inputs with this module, steps read evaluation sets, and the command reads
what a user looks at. A record that cannot be read is counted and passed to `bad` as a line of the reject file; it never
ends the run. Reasons:

    truncated, damaged       the file or a record ends early; a compressed stream, row group cannot be read further
    bad_json, bad_encoding   no JSON; no UTF-8
    duplicate_key            a key stands twice in an object
    not_finite, too_deep     Infinity or a number beyond it; more nesting than can be written again
    too_large                over 64 MiB
    trailing_data            text after the end of the array
    not_an_object, bad_shape JSON, but no conversation
    tool_calls, zero_weight  a turn that calls a tool; an answer of weight 0, not to be trained on
    negative_example, media, cut_short  what else nobody should learn (`unlearnable.py`)
    preference, plain_text   a pair of answers; a text without turns
    other_prompts, equal_answers, bad_label  a pair, or a rating, that no fine-tuning can use
    not_read                 a format that is known and not read
    bad_row                  a row of CSV with more or fewer fields than the header; a row of a
                             table with a value that Python does not have
    interrupted, canvas      an export whose first answer is not whole; or is a change to a document

A message of an export that is no turn is counted as a cut turn, with its reason, and stands in the reject file too:
hidden, thoughts, tool_turn, preamble, custom_instructions, error_message, interrupted, canvas, other_branch.

Kept: half surrogates as U+FFFD and NaN as null, counted as `lone_surrogate` and `not_a_number` among the changes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import IO, Any

from pipelines.formats import arrow, delimited, files, foreign, json_records, parquet, zip_archive
from pipelines.formats.gathering import gathered
from pipelines.formats.records import BadRecord, Found, Parsed, Unreadable
from pipelines.formats.shapes import conversation
from pipelines.formats.translation import LeftOut, Translation, written
from pipelines.formats.unlearnable import check
from pipelines.records.conversation import Conversation, Source
from pipelines.records.ledger import Ledger
from services.jobs.recipe import InputOptions

Bad = Callable[[dict[str, Any]], None]
_Made = LeftOut | Unreadable | tuple[Conversation, Mapping[str, int]]  # with the edits that reading took


def read(location: str, options: InputOptions, ledger: Ledger, bad: Bad, *, name: str = "") -> Iterator[Conversation]:
    """The conversations of a path or URL, in order. Raises ConfigurationError if it cannot be opened.

    `name` is what records call their source; the location itself if there is none.
    """
    name = name or location
    for position, found in enumerate(values(location)):
        source = Source(_file(name, found), found.line)
        for made in _made(found, options, source, position):
            if isinstance(made, LeftOut):
                ledger.counts.cut[made.reason] += 1
                bad(_line(source, _left_out(found.line, made)))
            elif isinstance(made, Unreadable):
                ledger.counts.records_in += 1
                ledger.counts.rejected[made.reason] += 1
                bad(_line(source, made))
            else:
                ledger.counts.records_in += 1
                ledger.counts.records_out += 1
                ledger.counts.changed.update(made[1])
                yield made[0]


def values(location: str) -> Iterator[Found]:
    """Every record of a path or URL before its shape is known. Raises ConfigurationError if it cannot be opened."""
    with files.open_input(location) as file:
        yield from gathered(_records(location, file))


def _records(name: str, file: IO[bytes]) -> Iterator[Found]:
    magic = file.read(files.MAGIC_BYTES)
    file.seek(0)
    if magic.startswith(zip_archive.MAGIC):
        for member, opened in zip_archive.members(name, file):
            for found in _of_member(f"{name}/{member}", opened):
                yield replace(found, member=member)
        return
    how = files.compression(name, magic)
    yield from _of_blocks(name, files.Blocks(files.blocks(file, how)), None if how else file)


def _of_member(name: str, file: IO[bytes]) -> Iterator[Found]:
    blocks = files.Blocks(zip_archive.blocks(file))
    how = files.compression(name, blocks.peek()[: files.MAGIC_BYTES])
    if not how:
        yield from _of_blocks(name, blocks, None)
        return
    with files.spool(name, blocks) as packed:
        yield from _of_blocks(name, files.Blocks(files.blocks(packed, how)), None)


def _of_blocks(name: str, blocks: files.Blocks, seekable: IO[bytes] | None) -> Iterator[Found]:
    """The records of one file. `seekable`: the file itself, if its bytes are those of the blocks."""
    start = blocks.peek()
    if start.startswith((files.PARQUET, arrow.FILE, arrow.STREAM)):
        by_rows = parquet if start.startswith(files.PARQUET) else arrow
        with seekable or files.spool(name, blocks) as file:
            file.seek(0)
            yield from by_rows.records(name, file)
    elif parts := delimited.delimiter(name, start):
        yield from delimited.records(name, blocks, parts)
    else:
        yield from json_records.records(blocks)


def _made(found: Found, options: InputOptions, source: Source, position: int) -> Iterator[_Made]:
    """What one record of the file becomes: a conversation for each branch, and before it what it does not hold."""
    if isinstance(found, Unreadable):
        yield found
        return
    try:
        for one in _translations(found.value, options):
            yield from _branch(one, found, options, source, position)
    except BadRecord as error:
        yield Unreadable.of(found.line, error.reason, str(error), found.raw)


def _branch(one: Translation, found: Parsed, options: InputOptions, source: Source, position: int) -> Iterator[_Made]:
    try:
        if one.error:
            raise one.error
        made = conversation(one.record, options.format, source, position, options.keep)
        if options.unlearnable == "reject":
            check(made)
    except BadRecord as error:
        yield Unreadable.of(found.line, error.reason, str(error), found.raw)
        return
    yield from one.left_out
    yield made.renamed(f"{made.id}_{one.branch}") if one.branch else made, {**one.changed, **_mended(found)}


def _mended(found: Parsed) -> dict[str, int]:
    """The edits without which the record would be no JSON."""
    edits = {"lone_surrogate": int(found.repaired), "not_a_number": found.emptied}
    return {name: number for name, number in edits.items() if number}


def _translations(value: Any, options: InputOptions) -> Iterator[Translation]:
    if options.format == "auto":
        return foreign.translations(value, options.branches == "all", options.keep)
    return iter([Translation(value)])


def _file(name: str, found: Found) -> str:
    """The source of a record: the input, and the file in it when it is an archive."""
    return f"{name}/{found.member}" if found.member else name


def _left_out(line: int, made: LeftOut) -> Unreadable:
    given = made.message
    raw = given.encode("utf-8", "replace") if isinstance(given, str) else written(given)
    return Unreadable.of(line, made.reason, "a message that is left out of its record", raw)


def _line(source: Source, found: Unreadable) -> dict[str, Any]:
    cut = (
        f"; its first {len(found.raw)} of {found.num_bytes} bytes are kept" if found.num_bytes > len(found.raw) else ""
    )
    return {
        "step": "read",
        "reason": found.reason,
        "detail": found.detail + cut,
        "source": [source.file, found.line],
        "raw": found.raw.decode("utf-8", "backslashreplace"),
    }
