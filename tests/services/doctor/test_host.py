"""This machine's faults: planted on a real disk where that can be done, else by what the system would say."""

from importlib.metadata import version
from pathlib import Path

import pytest

from services.doctor import host
from services.machine.disk import sizes
from tests.faults.disk import SmallDisk
from tests.services.doctor.told import only, told


def test_a_file_in_place_of_the_state_folder_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    level, message = only(host.check_state_folder(tmp_path / "state" / "deeper"))
    assert level == "wrong" and f"{tmp_path / 'state'} is a file" in message


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    """Also to root: nobody writes into /proc."""
    level, message = only(host.check_state_folder(Path("/proc/chatserver")))
    assert level == "wrong" and "/proc/chatserver cannot be written" in message
    assert only(host.check_state_folder(tmp_path))[0] == "ok"


def test_looking_at_the_state_folder_leaves_nothing(tmp_path: Path) -> None:
    level, message = only(host.check_state_folder(tmp_path / "new" / "state"))
    assert level == "ok" and "ChatServer will make it" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free_gib", "level"), [(0.5, "wrong"), (3, "warning"), (50, "ok")])
def test_a_disk_that_fills_up_is_found_before_it_is_full(tmp_path: Path, free_gib: float, level: str) -> None:
    found = only(host.check_disk(tmp_path / "not-yet", lambda folder: int(free_gib * 2**30)))
    assert found == (level, found[1]) and f"{free_gib:.1f} GiB are free at {tmp_path}" in found[1]


def test_what_holds_the_room_of_the_state_folder_is_named_with_what_frees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "SHOWN_BYTES", 1 << 20)
    for name, size in (("trained/july/checkpoints", 3 << 20), ("uploads/u", 2 << 20), ("redis", 1 << 10)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(b"x" * size)
    assert list(sizes(tmp_path)) == ["trained", "uploads", "redis"] and sizes(tmp_path)["trained"] >= 3 << 20
    assert only(host.check_state_size(tmp_path)) == ("ok", "the state folder holds trained 0.0 GiB, uploads 0.0 GiB")
    monkeypatch.setattr(host, "MUCH_BYTES", 4 << 20)
    (found,) = host.check_state_size(tmp_path)
    assert found.level == "note" and "holds 0.0 GiB: trained" in found.message
    assert "chatserver jobs remove" in found.remedy
    assert list(host.check_state_size(tmp_path / "none")) == []


def test_a_full_disk_is_called_full(tmp_path: Path) -> None:
    level, message = only(host.check_disk(tmp_path, lambda folder: 3 << 20))
    assert level == "wrong" and message.startswith(f"the disk of {tmp_path} is full: free 3 MiB. ")


def test_a_folder_on_a_full_disk_is_not_called_forbidden(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "state", 1 << 20) as disk:
        disk.fill()
        level, message = only(host.check_state_folder(disk.folder))
    assert (level, message) == ("wrong", f"the disk of {disk.folder} is full: free 0 MiB")


def test_another_version_than_the_tested_one_is_a_warning_that_names_both() -> None:
    required = ["# why", f"redis=={version('redis')}", "orjson==0.0.1", 'pytest==0.0.1; extra == "dev"']
    level, message = only(host.check_packages(lambda: required))
    assert level == "warning"
    assert f"orjson {version('orjson')} (not 0.0.1)" in message and "redis" not in message and "pytest" not in message


def test_a_build_of_the_pinned_version_is_the_pinned_version() -> None:
    assert told(host.check_packages(lambda: ["torch==2.13.0"], lambda name: "2.13.0+cpu"))[0][0] == "ok"


def test_what_an_image_leaves_out_is_a_note() -> None:
    found = told(host.check_packages(lambda: ["redis==1", "no-such-package==1"], {"redis": "1"}.get))
    assert found[0] == ("note", "not installed: no-such-package; fine where nothing that uses them runs")
    assert found[1][0] == "ok"


def test_the_requirements_of_this_checkout_can_be_read() -> None:
    found = told(host.check_packages())
    assert found and all("no packages" not in message for _, message in found)
    assert any(line.startswith("redis==") for line in host.required_packages())


@pytest.mark.parametrize(("limit", "level"), [(1024, "warning"), (65536, "ok"), (-1, "ok")])
def test_few_open_files_are_a_warning(limit: int, level: str) -> None:
    assert only(host.check_open_files(limit))[0] == level
