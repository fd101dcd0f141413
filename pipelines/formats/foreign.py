"""Knows the formats of other programs: which one a record has, and what it becomes.

`read.py` and `pipelines/training/` call it.

A record with ShareGPT's, OpenAI's or Alpaca's keys is none of these. A format that is known and not read is named in
the reason, so that nobody looks for a fault in a whole file.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipelines.formats.datasets import columns, functions, open_assistant, pairs, text_columns, turn_lists
from pipelines.formats.exports import ai_studio, chatgpt, claude, grok, librechat, open_webui, silly_tavern
from pipelines.formats.records import BadRecord
from pipelines.formats.translation import Format, Record, Translation

FORMATS: tuple[Format, ...] = (
    chatgpt.FORMAT, claude.FORMAT, ai_studio.FORMAT, open_webui.FORMAT, librechat.FORMAT, grok.FORMAT,
    silly_tavern.FORMAT,
    open_assistant.FORMAT, *functions.FORMATS, *turn_lists.FORMATS, columns.FORMAT, text_columns.FORMAT,
)  # fmt: skip
PLAIN = ("conversations", "items", "messages")
NOT_READ: Mapping[str, frozenset[str]] = {
    "a Discord export": frozenset({"guild", "channel", "messages"}),
    "a Google Takeout of activities": frozenset({"header", "title", "time"}),
    "a single message": frozenset({"role", "content"}),
    "a single turn": frozenset({"from", "value"}),
}


def format_of(record: Any) -> Format | None:
    """The format of another program; None for a plain record and for one that nobody knows."""
    if not isinstance(record, dict) or _is_plain(record):
        return None
    return next((one for one in FORMATS if one.recognises(record)), None)


def is_known(record: Record) -> bool:
    """Whether somebody knows what to make of a record, be it a reject."""
    return _is_plain(record) or any(one.recognises(record) for one in FORMATS) or bool(_refusal(record))


def _is_plain(record: Record) -> bool:
    if "instruction" in record and "output" in record:
        return True
    lists = (found for name in PLAIN if isinstance(found := record.get(name), list))
    return any(not found or (isinstance(found[0], dict) and ({"role", "from"} & found[0].keys())) for found in lists)


def shown(record: Any) -> Translation:
    """What the program shows of one record; itself if it is plain. Raises BadRecord."""
    one = next(translations(record, all_branches=False))
    if one.error:
        raise one.error
    return one


def translations(record: Any, all_branches: bool, keep: Collection[str] = ()) -> Iterator[Translation]:
    """The plain records of one record: itself if it is plain. Raises BadRecord that names the format."""
    is_pair = "pairs" in keep and isinstance(record, dict) and pairs.recognises(record)
    found = pairs.FORMAT if is_pair else format_of(record)
    if found is None:
        check_known(record)
        yield Translation(record)
        return
    try:
        yield from found.translate(record, all_branches)
    except BadRecord as error:
        raise BadRecord(error.reason, f"this is {found.name}: {error}") from None
    except (AttributeError, TypeError, KeyError) as error:
        raise BadRecord("bad_shape", f"this is {found.name} of another form: {error!r:.200}") from None


def check_known(record: Any) -> None:
    """Raises BadRecord for a record of a kind that is known and not read."""
    if isinstance(record, dict) and not _is_plain(record) and (refusal := _refusal(record)):
        raise refusal


def _refusal(record: Record) -> BadRecord | None:
    for name, keys in NOT_READ.items():
        if keys <= record.keys():
            return BadRecord("not_read", f"this is {name}, which is not read")
    if pairs.recognises(record):
        return BadRecord("preference", "this is a pair of answers, one preferred; only conversations are cleaned")
    return None
