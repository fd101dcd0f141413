"""The test of the suite: each build with one rule switched off makes its scenario fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.broken import BUILDS, Broken, build
from tests.faults.conftest import Outcome

TESTS_FAILED = 1  # pytest's exit code; others mean that nothing ran


@pytest.mark.parametrize("name", BUILDS)
def test_the_suite_notices(name: str, tmp_path: Path, redis_binary: Path, outcome: Outcome) -> None:
    broken = BUILDS[name]
    run = scenario_in_a_copy(broken, tmp_path)
    assert run.returncode == TESTS_FAILED, f"without {broken.rule!r}: exit code {run.returncode}\n{run.stdout[-3000:]}"
    assert f"\nFAILED tests/faults/{broken.scenario[0]}" in run.stdout, f"something else failed:\n{run.stdout[-3000:]}"
    outcome(f"broken build: {name}", result="noticed")


def test_a_copy_without_a_change_passes(tmp_path: Path, redis_binary: Path) -> None:
    """The control: it is the change that fails, not the copying."""
    run = scenario_in_a_copy(Broken("nothing", (), ("test_clients.py", "late_or_twice")), tmp_path)
    assert run.returncode == 0, run.stdout[-3000:]


def scenario_in_a_copy(broken: Broken, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build it, and run its scenario there."""
    build(broken, folder)
    file, selection = broken.scenario
    command = [sys.executable, "-m", "pytest", f"tests/faults/{file}", "-k", selection, "-x"]
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--basetemp={folder / 'runs'}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
