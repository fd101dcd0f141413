"""The bounds of a user's files hold however many uploads end together. `tests/webapp/api/test_files.py` has more."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from services.errors import TooLarge
from services.jobs.stored_files import StoredFiles, UserRoom


def test_two_uploads_that_end_together_do_not_share_the_last_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked before either had its name."""
    files = StoredFiles(tmp_path, max_bytes=100, room=UserRoom(num_files=9, num_bytes=100), reserve_bytes=0)
    written, looked, look = threading.Barrier(2), threading.Barrier(2, timeout=1), files._room_bytes

    def look_together(owned: Path, names: str) -> int:
        room_bytes = look(owned, names)
        if names == "file-*":
            with suppress(threading.BrokenBarrierError):  # the other one waits until this one has its name
                looked.wait()
        return room_bytes

    def upload(_: int) -> bool:
        with files.draft("ann") as made:
            written.wait(timeout=30)  # at the beginning the user had room for either
            made.write(b"x" * 60)
            with suppress(TooLarge):
                files.publish(made, "ann", "batch", "a.jsonl")
                return True
            return False

    monkeypatch.setattr(files, "_room_bytes", look_together)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(upload, range(2))) == [False, True]
    assert [each.num_bytes for each in files.list("ann")] == [60]
