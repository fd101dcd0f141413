"""What a reader of another program's format makes of one record: plain records, and what they do not hold.

The readers in `exports/` and `datasets/` make these; `foreign.py` knows all readers. A plain record has the shape of
OpenAI's messages or of Alpaca, which `shapes.py` reads. A reader raises BadRecord for what it cannot read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipelines.formats.records import BadRecord
from services.errors import shown

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A message that the people who talked did not see as one, or that cannot be trained on. `reason` is counted."""

    reason: str
    message: Any


@dataclass(frozen=True, slots=True)
class Translation:
    """One branch of a record. `branch` is empty for the branch that the program shows."""

    record: dict[str, Any]
    left_out: Sequence[LeftOut] = ()
    changed: Mapping[str, int] = field(default_factory=dict)  # edits, by name
    branch: str = ""
    error: BadRecord | None = None  # why this branch is no record


@dataclass(frozen=True, slots=True)
class Format:
    """How one format is told and read. `name` goes with an article: "a ChatGPT export".

    `translate` takes a record that `recognises` knows; its second argument asks for all branches.
    """

    name: str
    recognises: Callable[[Record], bool]
    translate: Callable[[Record, bool], Iterator[Translation]]


def each(translate: Callable[[Record], dict[str, Any]]) -> Callable[[Record, bool], Iterator[Translation]]:
    """The `translate` of a format whose record is one conversation and leaves nothing out."""

    def translated(record: Record, all_branches: bool) -> Iterator[Translation]:
        yield Translation(translate(record))

    return translated


def message(role: str, text: Any, **others: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **others}


def without(record: Record, *names: str) -> dict[str, Any]:
    """What else the record says."""
    return {name: value for name, value in record.items() if name not in names}


def scalars(record: Record, *names: str) -> dict[str, Any]:
    """What else the record says in one value: an export's lists and objects describe its program."""
    return {key: value for key, value in without(record, *names).items() if isinstance(value, str | int | float)}


def objects(value: Any, where: str) -> list[dict[str, Any]]:
    """A list of objects. Raises BadRecord that names the place."""
    if not isinstance(value, list):
        raise BadRecord("bad_shape", f"{where} is {shown(value)}; a list is needed")
    for index, one in enumerate(value):
        if not isinstance(one, dict):
            raise BadRecord("bad_shape", f"{where}[{index}] is {shown(one)}; an object is needed")
    return value


def written(value: Any) -> bytes:
    """The value as the reject file shows it; of one that is nested too deeply to be written, nothing."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return b"(nested too deeply to be shown)"


def parsed(value: Any) -> Any:
    """The list in a text of JSON, as files with columns hold lists; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return found if isinstance(found, list) else value
