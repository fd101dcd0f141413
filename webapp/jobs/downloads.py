"""Opens the files in a job's folder for download: known names only, and never through a symbolic link.

`routes.py` calls it. A job of the command may have written on another machine: then this machine has no file of it.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.errors import Gone

FILES = {
    "data": ("data.jsonl", "data.json", "data.parquet"),
    "validation": ("validation.jsonl", "validation.json", "validation.parquet"),
    "rejects": ("rejects.jsonl",),
    "report.json": ("report.json",),
    "report": ("report.html",),
}
TYPES = {
    ".jsonl": "application/x-ndjson",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".html": "text/html; charset=utf-8",
}


@dataclass(frozen=True)
class OpenFile:
    """A file that is open for reading. `etag` changes with the content."""

    file: BinaryIO
    name: str
    size: int
    etag: str

    @property
    def content_type(self) -> str:
        return TYPES[Path(self.name).suffix]


def available(out: Path) -> dict[str, dict[str, object]]:
    """`{kind: {name, size}}` of the files for download."""
    found: dict[str, dict[str, object]] = {}
    for kind in FILES:
        with contextlib.suppress(Gone):
            opened = open_file(out, kind)
            opened.file.close()
            found[kind] = {"name": opened.name, "size": opened.size}
    return found


def open_file(out: Path, kind: str) -> OpenFile:
    """Raises Gone when there is no regular file of this kind."""
    with _folder(out) as folder:
        for name in FILES.get(kind, ()):
            with contextlib.suppress(OSError):
                # Not to wait for whoever may write into a pipe: it is then found not to be a file.
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode):
                    etag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
                    return OpenFile(os.fdopen(descriptor, "rb"), name, status.st_size, etag)
                os.close(descriptor)
    raise Gone(f"this job has no file {kind[:40]!r} on this machine")


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[int]:
    try:
        descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        raise Gone(f"the folder of this job is not on this machine: {out}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
