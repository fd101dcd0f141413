"""Fixtures: what an older build left, and the present build over it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.system import ROOT, System, running_system
from tests.upgrades.old_build import OldBuild, unpack

Command = Callable[..., str]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldBuild:
    """Of this module alone: what one test changes, a later one of the module finds changed."""
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def system(old: OldBuild, redis_binary: Path) -> Iterator[System]:
    """Redis over the data of the older build, with the older build's settings; each test starts what it needs."""
    if "valkey" not in redis_binary.name:
        pytest.skip("the data were written by Valkey; an older Redis does not read its files")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with running_system(old.state, namespace="chatserver", binary=redis_binary, clean_processes=1) as made:
        yield made


@pytest.fixture(scope="module")
def chatserver(system: System) -> Command:
    """`chatserver(*arguments)` runs the command and gives what it printed; `code` is what it must end with."""

    def run(*arguments: str | Path, code: int = 0) -> str:
        entry = Path(sys.executable).parent / "chatserver"
        answer = subprocess.run(
            [entry, *map(str, arguments)], cwd=ROOT, env=system.environment, capture_output=True, text=True, check=False
        )
        assert answer.returncode == code, answer.stdout + answer.stderr
        return answer.stdout + answer.stderr

    return run
