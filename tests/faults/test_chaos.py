"""Random episodes over the whole system. FAULT_SEEDS (`3`, `1-5`; default 1) and FAULT_SECONDS (45) size them."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from tests.faults.chaos import Episode, schedule
from tests.faults.conftest import Outcome
from tests.faults.disk import SmallDisk, cannot_mount
from tests.faults.system import fault_system

SECONDS = float(os.environ.get("FAULT_SECONDS", "45"))
FIRST, _, LAST = os.environ.get("FAULT_SEEDS", "1").partition("-")
DISK_BYTES = 300 << 20
PARTS = ["worker-0", "worker-1", "web-0", "web-1"]


def test_a_seed_always_gives_the_same_faults() -> None:
    assert schedule(1, 45, PARTS, PARTS, lossy=True) == schedule(1, 45, PARTS, PARTS, lossy=True)
    assert schedule(1, 45, PARTS, PARTS, lossy=True) != schedule(2, 45, PARTS, PARTS, lossy=True)


@pytest.mark.timeout(SECONDS + 180)
@pytest.mark.parametrize("seed", range(int(FIRST), int(LAST or FIRST) + 1))
def test_whatever_happens_each_accepted_question_has_one_true_answer(
    seed: int, tmp_path: Path, redis_binary: Path, outcome: Outcome
) -> None:
    """On odd seeds Redis also loses the tail of its file now and then. Disks fill where a test may mount one."""
    with contextlib.ExitStack() as stack:
        folder = tmp_path / "redis"
        folder.mkdir()
        disk = None if cannot_mount(folder) else stack.enter_context(SmallDisk(folder, DISK_BYTES))
        options = ("--rate", "40")
        system = stack.enter_context(fault_system(tmp_path, worker_options=options, binary=redis_binary, disk=disk))
        episode = Episode(system, seed=seed, seconds=SECONDS, lossy=seed % 2 == 1)
        found = episode.run()
    outcome(f"longest wait for an end: {episode.latest_s():.0f} s", requests=episode.num_requests)
    result = "as promised" if not found else f"{len(found)} violations"
    for fault, times in episode.injected.items():
        outcome(fault, times=times, requests=episode.num_requests, result=result)
    assert not found, "\n".join([*found, episode.report()])
    shutil.rmtree(tmp_path)
