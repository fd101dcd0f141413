"""Says how full the disk of a folder is, and keeps a reserve on it that is released when the disk is full.

The embedded Redis, the web app, the admin page and the doctor use it.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from services.errors import StorageFull

FEW_BYTES = 96 << 20  # with less, nothing new is begun: what runs shall be able to finish
RESERVE_BYTES = 64 << 20


def nearest(folder: Path) -> Path:
    """The folder itself, or the nearest existing folder above it."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(nearest(folder)).free


def total_bytes(folder: Path) -> int:
    return shutil.disk_usage(nearest(folder)).total


def sizes(folder: Path) -> dict[str, int]:
    """How many bytes on the disk each entry of a folder takes, the largest first. What vanishes meanwhile counts 0."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = {entry.name: _taken(entry) for entry in entries}
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _taken(entry: "os.DirEntry[str]") -> int:
    """`st_blocks` counts 512 bytes, whatever the disk's own blocks are. Links are not followed."""
    with contextlib.suppress(OSError):
        size = entry.stat(follow_symlinks=False).st_blocks * 512
        if not entry.is_dir(follow_symlinks=False):
            return size
        with os.scandir(entry.path) as entries:
            return size + sum(map(_taken, entries))
    return 0


def full_words(folder: Path, free: int) -> str:
    return f"the disk of {folder} is full: free {free >> 20} MiB"


def fullness(folder: Path, few_bytes: int = FEW_BYTES) -> str:
    """`the disk of FOLDER is full: free N MiB`; empty while `few_bytes` are free."""
    free = free_bytes(folder)
    return full_words(folder, free) if free < few_bytes else ""


def check_room(folder: Path, num_bytes: int) -> None:
    """Raise StorageFull unless a file of this size fits. It tries, since a quota shows in no other way."""
    try:
        with tempfile.TemporaryFile(dir=nearest(folder)) as file:
            os.posix_fallocate(file.fileno(), 0, max(num_bytes, 1))
    except OSError as error:
        free = free_bytes(folder)
        raise StorageFull(
            f"{full_words(folder, free)}, {max(num_bytes >> 20, 1)} MiB are needed ({error.strerror})",
            remedy="make room there",
        ) from None


class Reserve:
    """A file that takes room, so that there is some to give when other programs have filled the disk."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    def hold(self) -> None:
        """Take the room, unless that itself would leave the disk nearly full."""
        if self._size == 0 or self._path.exists() or free_bytes(self._path.parent) < self._size + FEW_BYTES:
            return
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError:
            self.release()  # somebody was faster, or a quota says no

    def release(self) -> int:
        """Give the room back; how many bytes that was."""
        with contextlib.suppress(FileNotFoundError):
            size = self._path.stat().st_size
            self._path.unlink()
            return size
        return 0
