"""What counts as a server's, what as others', on the processes of this machine."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from bench.peers.machine import MIB, Meter, share_of_others, tree_cpu_s, tree_mib

BLOCK_MIB = 100
# A parent whose child holds memory and computes, and says when it is done.
CHILD = f"""
import time
block = b"x" * {BLOCK_MIB * MIB}
while time.process_time() < 0.5: pass
print(1, flush=True)
input()
"""
PROGRAM = f"""
import subprocess, sys
process = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
process.wait()
print(2, flush=True)
input()
"""


@contextmanager
def family() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.communicate("\n\n", timeout=30)


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("busy_s", "ours_s", "share"),
    [(10.0, 10.0, 0.0), (10.0, 4.0, 0.3), (20.0, 0.0, 1.0), (3.9, 4.0, 0.0), (20.3, 0.0, 1.0)],
)
def test_others_have_what_of_all_processors_is_not_ours(busy_s: float, ours_s: float, share: float) -> None:
    assert share_of_others(busy_s, ours_s, elapsed_s=10.0, processors=2) == pytest.approx(share)


def test_a_tree_counts_the_memory_and_the_time_of_its_children() -> None:
    with family() as process:
        assert says(process) == "1"
        roots = [psutil.Process(process.pid)]
        assert tree_mib(roots) > BLOCK_MIB
        assert tree_cpu_s(roots) >= 0.5


def test_the_time_of_a_child_that_has_ended_stays_counted() -> None:
    with family() as process:
        assert says(process) == "1"
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert says(process) == "2"
        assert tree_cpu_s([psutil.Process(process.pid)]) >= 0.5


def test_a_turn_has_the_time_and_the_memory_of_its_server() -> None:
    with family() as process:
        with Meter([psutil.Process(process.pid)]) as meter:
            assert says(process) == "1"
        assert meter.cpu_s >= 0.4  # it may have begun before the meter
        assert meter.peak_mib > BLOCK_MIB
        assert 0.0 <= meter.others <= 1.0


def test_a_server_that_has_ended_has_nothing() -> None:
    with family() as process:
        root = psutil.Process(process.pid)
        assert says(process) == "1"
    assert tree_mib([root]) == tree_cpu_s([root]) == 0.0
