"""What a server's processes use, and what everybody else uses meanwhile. Linux only. `scenarios.py` calls it.

The processor's time of the machine, less that of the server that is asked and of this program, is that of others: other
people's work, stolen time, and the servers that are loaded and not asked.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import psutil

SAMPLE_EVERY_S = 1.0
MIB = 2**20


class Meter:
    """A context manager around one turn of one server; read it afterwards."""

    others: float = 0.0  # share of all processors, 0 to 1
    cpu_s: float = 0.0  # of the server's processes
    peak_mib: float = 0.0  # the most that its processes had together; shared pages are counted once

    def __init__(self, server: Sequence[psutil.Process]) -> None:
        self._server = server
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._from = (time.monotonic(), busy_s(), tree_cpu_s(self._server), own_cpu_s())
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        began_at, busy, server, own = self._from
        elapsed_s, all_s = time.monotonic() - began_at, busy_s() - busy
        self.cpu_s = tree_cpu_s(self._server) - server
        self.others = share_of_others(all_s, self.cpu_s + own_cpu_s() - own, elapsed_s, os.cpu_count() or 1)
        self._over.set()
        self._sampler.join()
        self.peak_mib = max(self.peak_mib, tree_mib(self._server))

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_EVERY_S):
            self.peak_mib = max(self.peak_mib, tree_mib(self._server))


def share_of_others(busy: float, ours: float, elapsed_s: float, processors: int) -> float:
    """0 to 1. The kernel counts in hundredths of a second, so a short turn can come out below nothing."""
    return min(1.0, max(0.0, (busy - ours) / (elapsed_s * processors)))


def busy_s() -> float:
    """Seconds in which a processor of this machine did something, or was taken from it, since the machine's start."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def tree_cpu_s(roots: Sequence[psutil.Process]) -> float:
    """With the children that have ended and were waited for."""
    total = 0.0
    for process in _living(roots):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def own_cpu_s() -> float:
    """Of this process alone: its children are servers, of which one is asked."""
    return float(sum(psutil.Process().cpu_times()[:2]))


def tree_mib(roots: Sequence[psutil.Process]) -> float:
    """Proportional memory: a page that two processes share counts half in each."""
    total = 0.0
    for process in _living(roots):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / MIB


def _living(roots: Sequence[psutil.Process]) -> Iterator[psutil.Process]:
    for root in roots:
        with contextlib.suppress(psutil.Error):
            yield from (root, *root.children(recursive=True))
