"""The folder of a run: what is done is what was renamed."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cleaning.units import Folder, Unit
from services.errors import ConfigurationError


@pytest.mark.parametrize("unit", [Unit("read"), Unit("finish"), Unit("judge", 1), Unit("shard", 2, 17)])
def test_a_unit_is_found_again_by_its_name(unit: Unit) -> None:
    assert Unit.parse(unit.name) == unit


@pytest.mark.parametrize("name", ["", "shard-0", "shard--1-2", "judge", "../read", "read\n"])
def test_what_is_no_unit_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        Unit.parse(name)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "out")
    made.claim({"recipe": "a", "inputs": []})
    return made


def test_a_unit_that_failed_half_way_is_not_done_and_leaves_nothing(folder: Folder) -> None:
    with pytest.raises(ZeroDivisionError), folder.making(Unit("read")) as draft:
        (draft / "half").write_text("x")
        raise ZeroDivisionError
    assert not folder.done(Unit("read"))
    assert not list(folder.work.glob("tmp-*"))


def test_what_a_killed_process_left_is_removed_by_the_next(folder: Folder) -> None:
    left = folder.work / "tmp-read-killed"
    left.mkdir()
    with folder.making(Unit("read")) as draft:
        (draft / "whole").write_text("x")
    assert folder.done(Unit("read")) and not left.exists()


def test_a_folder_belongs_to_one_run(folder: Folder) -> None:
    folder.claim({"recipe": "a", "inputs": []})
    with pytest.raises(ConfigurationError, match="another recipe"):
        folder.claim({"recipe": "b", "inputs": []})


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Folder(tmp_path / "file" / "out").claim({})


def test_the_lock_of_a_killed_process_is_free_again(folder: Folder) -> None:
    program = f"""
import sys
from pathlib import Path
from pipelines.cleaning.units import Folder, Unit
with Folder(Path({str(folder.out)!r})).lock(Unit("read")) as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"True\n"
        with folder.lock(Unit("read")) as ours:
            assert not ours
        with folder.lock(Unit("judge")) as ours:
            assert ours
        holder.kill()
        holder.wait()
        with folder.lock(Unit("read")) as ours:
            assert ours
