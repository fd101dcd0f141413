"""A small disk of its own for one folder, to be filled and freed. It needs the right to mount a tmpfs.

with SmallDisk(folder, num_bytes=200 << 20) as disk:
    disk.fill()
    disk.free()
"""

import contextlib
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

STEP_BYTES = 1 << 20


def cannot_mount(folder: Path) -> str:
    """Why no disk can be mounted here; empty when one can."""
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if tried.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)
    return tried.stderr.strip() if tried.returncode else ""


class SmallDisk:
    """A tmpfs over `folder`, which is made. Skips the test with a reason where nothing may be mounted."""

    def __init__(self, folder: Path, num_bytes: int) -> None:
        self.folder = folder
        self._num_bytes = num_bytes

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        if why := cannot_mount(self.folder):
            pytest.skip(f"this test fills a disk of its own, and may mount none: {why}")
        options = f"size={self._num_bytes},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    @property
    def _filler(self) -> Path:
        return self.folder / "of-another-program"

    def fill(self) -> None:
        """Another program takes every byte that is free."""
        with self._filler.open("ab") as file:
            for size in (STEP_BYTES, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        end = file.seek(0, os.SEEK_END)
                        os.posix_fallocate(file.fileno(), end, size)

    def free(self) -> None:
        """It gives the room back. Idempotent."""
        self._filler.unlink(missing_ok=True)
