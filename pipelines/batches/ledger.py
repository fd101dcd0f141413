"""The two files that a batch writes, and up to where it has come: whatever dies, both go on exactly there.

    folder/input.jsonl     the questions
    folder/output.jsonl    a line for each answer
    folder/errors.jsonl    a line for each question without one
    folder/progress.json   how far the other three count; written after them

The first three are deleted once the batch has ended and its user has the files that it wrote.

A line is in one of the two files once `commit` has returned. What a process wrote behind that and did not commit, the
next one cuts off. `lock` lets one process at a time work on the batch.
"""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson

from services.jobs.batches import INPUT
from services.machine.files import sync, try_lock, write_json


@dataclass(frozen=True)
class BatchPlace:
    """Where a batch is. `number` and `offset`: the last line of the input that is answered, and its end in bytes."""

    number: int = 0
    offset: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    answered: int = 0
    failed: int = 0
    num_lines: int = 0  # 0: the input was not checked yet
    checked_s: int = 0
    ended: str = ""  # `done`, `cancelled` or `expired`, once no line follows
    published: bool = False  # the user has both files, under these ids; empty: there was nothing to write
    output_file: str = ""
    error_file: str = ""


@dataclass(frozen=True)
class AnsweredLine:
    """What is written for a line. `failed`: into the file of errors."""

    text: bytes
    failed: bool


class BatchLedger:
    """The files of one batch, for whoever has its lock."""

    def __init__(self, folder: Path) -> None:
        self.input, self.output, self.errors = folder / INPUT, folder / "output.jsonl", folder / "errors.jsonl"
        self._place_file = folder / "progress.json"
        self.place = _place(self._place_file)
        for path, size in ((self.output, self.place.output_bytes), (self.errors, self.place.error_bytes)):
            with path.open("ab"):
                os.truncate(path, size)

    @staticmethod
    def lock(folder: Path) -> AbstractContextManager[int | None]:
        """The lock, or None inside while another process has it."""
        return try_lock(folder / "lock")

    def checked(self, num_lines: int, now_s: int) -> None:
        self._keep(replace(self.place, num_lines=num_lines, checked_s=now_s))

    def commit(self, lines: Iterable[AnsweredLine], number: int, offset: int, ended: str = "") -> None:
        """Write these lines; the input is answered up to a line and its end."""
        found = list(lines)
        output = b"".join(line.text for line in found if not line.failed)
        errors = b"".join(line.text for line in found if line.failed)
        for path, data in ((self.output, output), (self.errors, errors)):
            if data:
                with path.open("ab") as file:
                    file.write(data)
                sync(path)
        self._keep(
            replace(
                self.place,
                number=number,
                offset=offset,
                output_bytes=self.place.output_bytes + len(output),
                error_bytes=self.place.error_bytes + len(errors),
                answered=self.place.answered + sum(not line.failed for line in found),
                failed=self.place.failed + sum(line.failed for line in found),
                ended=ended or self.place.ended,
            )
        )

    def published(self, output_file: str, error_file: str) -> None:
        """The user has what was written: from now on nothing in this folder is needed but the place."""
        files = replace(self.place, output_file=output_file, error_file=error_file)
        self._keep(replace(files, published=True, output_bytes=0, error_bytes=0))

    def let_go(self) -> None:
        """Delete the questions and what was written of the answers."""
        for path in (self.input, self.output, self.errors):
            path.unlink(missing_ok=True)

    def _keep(self, place: BatchPlace) -> None:
        write_json(self._place_file, asdict(place))
        self.place = place


def _place(path: Path) -> BatchPlace:
    """Where an earlier process was; of another version's place, the known fields."""
    try:
        raw: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return BatchPlace()
    return BatchPlace(**{each.name: raw[each.name] for each in fields(BatchPlace) if each.name in raw})
