"""Receives files from a browser for a job, in pieces that fit the size limit of a request. `routes.py` calls it.

    state_dir/uploads/<id>/about.json     the user's name of the file, its size, our name of it
    state_dir/uploads/<id>/<id>.jsonl.gz  what has come; its length is the offset from which the client goes on

So an upload survives a reload of the page and a restart of the server, and any web process takes the next piece. When a
job is made, its files move into the job's folder. Functions here block: call them in a thread.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from services.errors import Busy, Conflict, Gone, InvalidRequest, StorageFull, shown
from services.machine.files import flock, private, sync

RESERVE_BYTES = 1 << 30  # of the disk, left for cleaning and for Redis
KEPT_S = 86_400  # an upload that nobody goes on with, or gives to a job
MAX_PENDING = 200
MAX_NAME_CHARS = 255

_ID = re.compile("[0-9a-f]{32}")
_SUFFIX = re.compile(r"(\.jsonl|\.json|\.parquet)?(\.gz|\.zst|\.zstd)?$", re.IGNORECASE)
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


class WrongOffset(Conflict):
    """A piece does not continue the upload; the error says at which byte to go on."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload continues at byte {offset}")
        self.offset = offset

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "offset": self.offset}


@dataclass(frozen=True)
class Upload:
    """One file. `name` is the user's name for it, only a label; `file` is the name on the disk."""

    id: str
    name: str
    size: int
    file: str
    offset: int

    @property
    def complete(self) -> bool:
        return self.offset == self.size


class Uploads:
    """The uploads of one state folder; one file has at most `max_bytes`."""

    def __init__(self, folder: Path, *, max_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._reserve_bytes = reserve_bytes

    def create(self, name: object, size: object) -> Upload:
        """A new, empty upload. Raises InvalidRequest, StorageFull, or Busy with too many unfinished ones."""
        if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool):
            raise InvalidRequest("an upload must have a name (text) and a size (bytes)")
        label = label_of(name)
        if size < 1:
            raise InvalidRequest(f"{label} is empty")
        if size > self.max_bytes:
            raise InvalidRequest(
                f"{label} has {size:,} bytes; the limit is {self.max_bytes:,} (CHATSERVER_MAX_UPLOAD_MIB). The command "
                "reads files of any size in place: chatserver clean submit"
            )
        private(self._folder)
        self.sweep()
        self._make_room(size)
        return self._make(label, size)

    def get(self, upload_id: str) -> Upload:
        """The upload of this id. Raises Gone when there is none."""
        return _read(self._folder_of(upload_id))

    def write(self, upload_id: str, offset: int, piece: bytes) -> Upload:
        """Append a piece that begins at `offset`; one that is there already changes nothing.

        Raises WrongOffset for any other, InvalidRequest past the announced size, StorageFull.
        """
        upload = self.get(upload_id)
        with _locked(self._folder_of(upload_id) / upload.file) as file:
            length = file.seek(0, os.SEEK_END)
            if offset < length and offset + len(piece) <= length:
                file.seek(offset)
                if file.read(len(piece)) == piece:
                    return self.get(upload_id)
            if offset != length:
                raise WrongOffset(length)
            if length + len(piece) > upload.size:
                raise InvalidRequest(
                    f"the file has {length + len(piece)} bytes, but it was announced with {upload.size}"
                )
            self._append(file, piece)
        return self.get(upload_id)

    def claim(self, upload_id: str, folder: Path) -> tuple[Path, str]:
        """Move a complete upload into the folder of its job; repeating it changes nothing. (its path, its label)

        Raises Gone, or InvalidRequest when it is not complete.
        """
        target = folder / _checked(upload_id)
        if not target.exists():
            upload = self.get(upload_id)
            if not upload.complete:
                raise InvalidRequest(f"{upload.name} is not complete: {upload.offset:,} of {upload.size:,} bytes")
            sync(self._folder_of(upload_id) / upload.file)
            private(folder.parent)  # of all jobs
            private(folder)
            with contextlib.suppress(FileNotFoundError):  # the same request in another process was faster
                self._folder_of(upload_id).rename(target)
            sync(folder)
        upload = _read(target)
        return target / upload.file, upload.name

    def drop(self, upload_id: str) -> None:
        """Forget an upload; nothing happens when there is none."""
        shutil.rmtree(self._folder_of(upload_id), ignore_errors=True)

    def sweep(self) -> None:
        """Remove the uploads that got no piece for a day."""
        for folder in self._folder.iterdir():
            with contextlib.suppress(OSError):
                newest = max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
                if time.time() - newest > KEPT_S:
                    shutil.rmtree(folder, ignore_errors=True)

    def _pending(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if _ID.fullmatch(path.name)]

    def _folder_of(self, upload_id: str) -> Path:
        return self._folder / _checked(upload_id)

    def _make(self, label: str, size: int) -> Upload:
        upload_id = secrets.token_hex(16)
        found = _SUFFIX.search(label)
        file = upload_id + (found[0].lower() if found else "")
        draft = self._folder / f"{upload_id}.new"
        draft.mkdir()
        (draft / file).touch()
        (draft / "about.json").write_text(json.dumps({"name": label, "size": size, "file": file}), "utf-8")
        draft.rename(self._folder / upload_id)
        return self.get(upload_id)

    def _make_room(self, size: int) -> None:
        """Raises unless the disk has room for this upload, the rest of all announced ones, and the reserve."""
        pending = self._pending()
        if len(pending) >= MAX_PENDING:
            raise Busy(
                f"{len(pending)} uploads belong to no job yet; submit their jobs, or wait a day", retry_after_s=60.0
            )
        announced = 0
        for folder in pending:
            with contextlib.suppress(Gone):
                upload = _read(folder)
                announced += upload.size - upload.offset
        self._check_disk(size + announced)

    def _check_disk(self, more_bytes: int) -> None:
        left = shutil.disk_usage(self._folder).free - more_bytes
        if left < self._reserve_bytes:
            raise StorageFull(
                f"the disk of the state folder has no room for {more_bytes:,} bytes more: it would leave "
                f"{max(left, 0):,}, and {self._reserve_bytes:,} are kept free. Remove old jobs"
            )

    def _append(self, file: BinaryIO, piece: bytes) -> None:
        self._check_disk(len(piece))
        try:
            file.write(piece)
            file.flush()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # what was written counts; the client asks how much
                raise StorageFull(f"the disk of the state folder is full: {error}") from None
            raise


def label_of(name: str) -> str:
    """A name from a browser for display: the last component of a path, without invisible characters."""
    return visible(re.split(r"[/\\]", name)[-1])[-MAX_NAME_CHARS:] or "file"


def visible(text: str) -> str:
    """The text in one line of valid Unicode, without characters that hide or reorder text."""
    return _INVISIBLE.sub("", text).encode("utf-8", "replace").decode().strip()


def _checked(upload_id: str) -> str:
    if not _ID.fullmatch(upload_id):
        raise Gone(f"no upload has the id {shown(upload_id)}")
    return upload_id


def _read(folder: Path) -> Upload:
    try:
        about = json.loads((folder / "about.json").read_text("utf-8"))
        length = (folder / about["file"]).stat().st_size
    except FileNotFoundError:
        raise Gone(f"the upload {folder.name} is not here any more; choose the file again") from None
    return Upload(folder.name, about["name"], about["size"], about["file"], length)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file for reading and writing, for one process and thread at a time."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise Gone("the upload is not here any more; choose the file again") from None
    with os.fdopen(descriptor, "r+b") as file:
        flock(file)
        yield file
