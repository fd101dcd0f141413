"""How much memory a process and its descendants hold. A worker tells it with its presence."""

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")


def resident_bytes(pid: int) -> int:
    """Bytes in memory; what several of the processes share counts for each. 0 where the system has no /proc."""
    return _own(pid) + sum(map(resident_bytes, _children(pid)))


def _own(pid: int) -> int:
    with contextlib.suppress(OSError):  # it has ended
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in PROC.glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            found += map(int, thread.read_text().split())
    return found
