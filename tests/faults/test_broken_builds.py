"""The test of the suite: each build with one rule switched off makes its scenario fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.broken import BUILDS, build
from tests.faults.conftest import Outcome

TESTS_FAILED = 1  # pytest's exit code; others mean that nothing ran


@pytest.mark.parametrize("name", BUILDS)
def test_the_suite_notices(name: str, tmp_path: Path, redis_binary: Path, outcome: Outcome) -> None:
    broken = BUILDS[name]
    build(broken, tmp_path)
    file, selection = broken.scenario
    command = [sys.executable, "-m", "pytest", f"tests/faults/{file}", "-k", selection, "-x"]
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'runs'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert run.returncode == TESTS_FAILED, f"without {broken.rule!r}: exit code {run.returncode}\n{run.stdout[-3000:]}"
    outcome(f"broken build: {name}", result="noticed")
