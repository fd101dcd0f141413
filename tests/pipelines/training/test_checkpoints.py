"""Checkpoints as folders: whole or counting for nothing."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.training.checkpoints import MARKER, Checkpoints
from pipelines.training.reporting import Reporter
from services.errors import ConfigurationError


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, keep=2, report=Reporter(rank=0))


def save(checkpoints: Checkpoints, step: int) -> Path:
    checkpoints.begin(step)
    folder = checkpoints.folder(step)
    (folder / "weights").mkdir()
    (folder / "weights" / "part").write_bytes(b"weights" * 100)
    (folder / "state.json").write_text("{}")
    checkpoints.complete(step, {"weights/part": 700})
    return folder


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


def test_the_highest_step_is_taken_by_number(checkpoints: Checkpoints) -> None:
    save(checkpoints, 9)
    save(checkpoints, 10)
    assert checkpoints.newest() == 10


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None


def test_a_half_written_checkpoint_is_never_loaded(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    save(checkpoints, 1)
    checkpoints.begin(2)
    (checkpoints.folder(2) / "part").write_bytes(b"half")
    assert checkpoints.newest() == 1
    assert "checkpoint-2 is not used and removed: it has no COMPLETE.json" in capsys.readouterr().out
    assert not checkpoints.folder(2).exists()


def test_a_part_of_another_machine_is_waited_for(tmp_path: Path) -> None:
    """A mounted bucket shows it late; sealed without it, a checkpoint counted that nobody could load."""
    checkpoints = Checkpoints(tmp_path, keep=2, report=Reporter(rank=0), visible_s=30)
    checkpoints.begin(1)
    part = checkpoints.folder(1) / "part-of-another"
    late = threading.Timer(0.3, part.write_bytes, [b"late"])
    late.start()
    checkpoints.complete(1, {part.name: 4})
    late.join()
    assert part.name in (checkpoints.folder(1) / MARKER).read_text()


def test_a_part_that_never_comes_leaves_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, report=Reporter(rank=0), visible_s=0.1)
    checkpoints.begin(1)
    with pytest.raises(ConfigurationError, match="such as weights/gone: all machines of a run must share its --out"):
        checkpoints.complete(1, {"weights/gone": 0})
    assert checkpoints.newest() is None


def change_a_byte(folder: Path) -> None:
    (folder / "weights" / "part").write_bytes(b"Weights" + b"weights" * 99)


def cut(folder: Path) -> None:
    (folder / "weights" / "part").write_bytes(b"weights")


def remove(folder: Path) -> None:
    (folder / "state.json").unlink()


def cut_marker(folder: Path) -> None:
    (folder / MARKER).write_bytes((folder / MARKER).read_bytes()[:40])


@pytest.mark.parametrize("damage", [change_a_byte, cut, remove, cut_marker])
def test_a_damaged_checkpoint_is_never_loaded(checkpoints: Checkpoints, damage: Callable[[Path], None]) -> None:
    save(checkpoints, 1)
    damage(save(checkpoints, 2))
    assert checkpoints.newest() == 1


def test_older_ones_go_when_a_new_one_is_complete(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (1, 2):
        save(checkpoints, step)
    checkpoints.begin(3)
    assert steps_in(tmp_path) == [1, 2, 3], "nothing goes while the new one counts for nothing"
    checkpoints.complete(3, {})
    assert steps_in(tmp_path) == [2, 3]


def test_half_written_ones_do_not_count_among_those_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    save(checkpoints, 1)
    checkpoints.begin(2)
    save(checkpoints, 3)
    assert steps_in(tmp_path) == [1, 3]


def test_a_step_that_is_saved_again_begins_with_an_empty_folder(checkpoints: Checkpoints) -> None:
    folder = save(checkpoints, 1)
    checkpoints.begin(1)
    assert list(folder.iterdir()) == []
