"""Files and folders are whole or count for nothing; a lock ends with its last holder."""

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.machine import files
from services.machine.processes import end_tied, start_tied


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that were synced, in turn."""
    found: list[int] = []

    def note(descriptor: int) -> None:
        found.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr("services.machine.files.os.fsync", note)
    return found


# -- whole or absent


def test_what_was_written_replaces_what_was_there_and_leaves_no_draft(tmp_path: Path, synced: list[int]) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    files.write(path, b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["state.json"]
    assert synced == [path.stat().st_ino, tmp_path.stat().st_ino], "the file before it was renamed, then its name"


def test_a_write_that_fails_leaves_the_old_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("services.machine.files.os.fsync", fail)
    with pytest.raises(OSError, match="full"):
        files.write(path, b"new")
    assert path.read_text() == "old" and names(tmp_path) == ["state.json"]


def test_only_what_is_new_is_written_if_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    files.write(path, b"first", only_new=True)
    files.write(path, b"second", only_new=True)
    assert path.read_bytes() == b"first" and names(tmp_path) == ["run.json"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("only_new", [False, True])
def test_a_file_has_the_mode_that_was_asked_for(tmp_path: Path, mode: int, only_new: bool) -> None:
    files.write(tmp_path / "file", b"", mode=mode, only_new=only_new)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_published_folder_is_on_disk_before_it_has_its_name(tmp_path: Path, synced: list[int]) -> None:
    with files.draft(tmp_path, "tmp-") as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "file").write_text("x")
        inside = {path.stat().st_ino for path in [draft, draft / "deep", draft / "deep" / "file"]}
        files.publish(draft, tmp_path / "made")
    assert names(tmp_path) == ["made"] and (tmp_path / "made" / "deep" / "file").read_text() == "x"
    assert set(synced[:-1]) == inside and synced[-1] == tmp_path.stat().st_ino


def test_a_draft_that_was_not_published_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.draft(tmp_path, "tmp-") as draft:
        (draft / "half").write_text("x")
        raise ZeroDivisionError
    assert not names(tmp_path)


def test_a_name_that_is_taken_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "first").write_text("x")
    with files.draft(tmp_path, "tmp-") as draft, pytest.raises(OSError, match="not empty"):
        files.publish(draft, tmp_path / "made")
    assert names(tmp_path / "made") == ["first"]


# -- whole once its marker is there


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "part").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    assert files.seal(folder, "whole.json", {"step": 3}) == 9
    return folder


def test_a_sealed_folder_is_whole_and_says_what_it_was_given(sealed: Path) -> None:
    assert files.fault_of(sealed, "whole.json") == ""
    marker = files.read_marker(sealed / "whole.json")
    assert marker["step"] == 3 and set(marker["files"]) == {"config.json", "weights/part"}
    assert marker["files"]["weights/part"] == {"bytes": 7, "sha256": files.sha256_of(sealed / "weights" / "part")}


def test_a_changed_byte_is_found_by_the_checksums_alone(sealed: Path) -> None:
    (sealed / "weights" / "part").write_bytes(b"Weights")
    assert files.fault_of(sealed, "whole.json", checksums=False) == ""
    assert files.fault_of(sealed, "whole.json") == "the contents of weights/part have changed"


def test_a_file_that_lacks_or_was_cut_is_named(sealed: Path) -> None:
    (sealed / "weights" / "part").write_bytes(b"wei")
    assert files.fault_of(sealed, "whole.json") == "weights/part has 3 bytes instead of 7"
    (sealed / "weights" / "part").unlink()
    assert files.fault_of(sealed, "whole.json") == "weights/part is not there"


def test_a_folder_without_its_marker_counts_for_nothing(sealed: Path) -> None:
    (sealed / "whole.json").unlink()
    assert files.fault_of(sealed, "whole.json") == "it has no whole.json, which is written last"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"a": 3}}', '{"files": {"a": {"bytes": "x"}}}'])
def test_a_damaged_marker_is_none(sealed: Path, text: str) -> None:
    (sealed / "whole.json").write_text(text)
    assert files.fault_of(sealed, "whole.json").startswith("its whole.json is damaged: ")
    with pytest.raises(ValueError):  # JSON's own error is one
        files.read_marker(sealed / "whole.json")


def test_the_marker_is_written_when_all_files_are_on_disk(tmp_path: Path, synced: list[int]) -> None:
    (tmp_path / "part").write_bytes(b"x")
    files.seal(tmp_path, "whole.json", {})
    assert synced == [path.stat().st_ino for path in (tmp_path / "part", tmp_path / "whole.json", tmp_path)]


def without_fsync(monkeypatch: pytest.MonkeyPatch, *, of_folders: bool) -> None:
    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
            raise OSError("not supported")

    monkeypatch.setattr("services.machine.files.os.fsync", refuse)


def test_a_bucket_that_cannot_sync_folders_will_do(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_fsync(monkeypatch, of_folders=True)
    files.seal(sealed, "whole.json", {"step": 4})
    assert files.read_marker(sealed / "whole.json")["step"] == 4
    with pytest.raises(OSError, match="not supported"):
        files.sync(sealed)


def test_a_file_that_cannot_be_synced_leaves_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_fsync(monkeypatch, of_folders=False)
    (tmp_path / "part").write_bytes(b"x")
    with pytest.raises(OSError, match="not supported"):
        files.seal(tmp_path, "whole.json", {})
    assert names(tmp_path) == ["part"]


# -- locks


def hold(path: Path, held: Any, end: Any) -> None:
    with files.lock(path):
        held.set()
        end.wait()


def test_a_lock_is_waited_for_and_a_killed_holder_gives_it_back(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, end = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path / "lock", held, end))
    holder.start()
    assert held.wait(30)
    with files.try_lock(tmp_path / "lock") as ours:
        assert ours is None
    holder.kill()
    with files.lock(tmp_path / "lock"):  # as soon as the kernel has taken it back
        pass
    holder.join()
    with files.try_lock(tmp_path / "lock") as ours:
        assert ours is not None


def test_a_shared_lock_is_refused_while_another_is_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.lock(path), path.open("rb") as other:
        assert not files.flock(other, shared=True, wait=False)
    with path.open("rb") as one, path.open("rb") as other:
        assert files.flock(one, shared=True, wait=False) and files.flock(other, shared=True, wait=False)


def test_a_child_that_inherited_the_lock_keeps_it(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with files.try_lock(tmp_path / "lock") as descriptor:
        assert descriptor is not None and descriptor >= files.FIRST_DESCRIPTOR
        child = subprocess.Popen(program, stdin=subprocess.PIPE, pass_fds=[descriptor])
    try:
        with files.try_lock(tmp_path / "lock") as ours:
            assert ours is None
    finally:
        child.communicate()
    with files.try_lock(tmp_path / "lock") as ours:
        assert ours is not None


def test_a_tied_child_and_its_watcher_can_inherit_a_lock(tmp_path: Path) -> None:
    with files.try_lock(tmp_path / "lock") as descriptor:
        assert descriptor is not None
        child = start_tied(["sleep", "60"], output=subprocess.DEVNULL, descriptors=[descriptor])
    with files.try_lock(tmp_path / "lock") as ours:
        assert ours is None
    end_tied(child, signal.SIGKILL, 10)
    with files.lock(tmp_path / "lock"):  # the watcher's end is not waited for
        pass


# -- for this user alone


def test_a_private_folder_is_made_or_closed_and_says_when_it_was_open(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert not files.private(folder) and stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    assert files.private(folder) and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not files.private(folder)


def test_a_folder_that_is_everybodys_stays_so(tmp_path: Path) -> None:
    """Who names /tmp as the state folder must not take it from all others."""
    folder = tmp_path / "everybodys"
    folder.mkdir()
    folder.chmod(0o1777)
    assert not files.private(folder) and stat.S_IMODE(folder.stat().st_mode) == 0o1777


def test_a_folder_on_a_read_only_file_system_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that wakes the pipelines has no volume in its container: it died of its image's folder."""

    def refuse(self: Path, mode: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    assert not files.private(tmp_path)


def test_what_is_kept_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert [files.kept(path, b"first"), files.kept(path, b"second")] == [b"first", b"first"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"")
    assert files.kept(path, b"third") == b"third"


def test_a_kept_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret_key"
    key = files.kept_key(path)
    assert len(key) == 64 and files.kept_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and list(path.parent.iterdir()) == [path]
