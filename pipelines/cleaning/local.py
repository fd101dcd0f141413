"""Runs a cleaning on this machine, in this process or in several. `chatserver clean run` calls it."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context

from pipelines.cleaning.cleaning import Cleaning, Progress
from pipelines.cleaning.units import Unit
from services.errors import ConfigurationError

Tell = Callable[[Unit, Progress], None]


def run(cleaning: Cleaning, processes: int, tell: Tell) -> None:
    """Do all that is left. `tell` sees every unit's progress; with several processes, only that of ended units."""
    cleaning.prepare()
    with _doer(cleaning, processes, tell) as do_all:
        while units := cleaning.todo():
            do_all(units)


@contextlib.contextmanager
def _doer(cleaning: Cleaning, processes: int, tell: Tell) -> Iterator[Callable[[Sequence[Unit]], None]]:
    if processes == 1:
        yield lambda units: _one_by_one(cleaning, units, tell)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _end_with_us) as pool:
        try:
            yield lambda units: _side_by_side(cleaning, units, tell, pool, processes)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_us() -> None:
    """Ctrl-C reaches the whole group: children end without a traceback of their own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _one_by_one(cleaning: Cleaning, units: Sequence[Unit], tell: Tell) -> None:
    for unit in units:
        do_alone(cleaning, unit, partial(tell, unit))


def _side_by_side(
    cleaning: Cleaning, units: Sequence[Unit], tell: Tell, pool: ProcessPoolExecutor, processes: int
) -> None:
    """All units of a wave, no more than twice as many at once as there are processes."""
    left = list(reversed(units))
    running: dict[Future[None], Unit] = {}
    while left or running:
        while left and len(running) < 2 * processes:
            unit = left.pop()
            running[pool.submit(_in_child, cleaning, unit)] = unit
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            unit = running.pop(future)
            future.result()
            tell(unit, cleaning.counts(unit))


def _in_child(cleaning: Cleaning, unit: Unit) -> None:
    do_alone(cleaning, unit, lambda progress: None)


def do_alone(cleaning: Cleaning, unit: Unit, watch: Callable[[Progress], None]) -> None:
    """Do one unit under its lock. Raises ConfigurationError when another process holds it."""
    with cleaning.lock(unit) as ours:
        if not ours:
            raise ConfigurationError(f"another process is working in {cleaning.folder.out}; let it end, or stop it")
        cleaning.do(unit, watch)
