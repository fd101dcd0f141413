"""The embedded server over a disk that fills: it loses nothing that it answered, and goes on when there is room."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer
from services.connection.keeper import ServerKeeper
from services.machine.disk import RESERVE_BYTES
from tests.conftest import Eventually
from tests.faults.disk import SmallDisk

DISK_BYTES = 200 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "state" / "redis", DISK_BYTES) as made:
        yield made


@pytest.fixture
def server(disk: SmallDisk, redis_binary: Path) -> Iterator[EmbeddedServer]:
    made = EmbeddedServer(disk.folder.parent, binary=redis_binary)
    yield made
    made.stop()


def write_until_refused(client: redis.Redis) -> int:
    """How many writes were answered."""
    number = 0
    with contextlib.suppress(redis.RedisError):
        while True:
            client.rpush("list", f"{number}")
            number += 1
    return number


def test_a_full_disk_releases_the_reserve_and_loses_nothing_that_was_answered(
    disk: SmallDisk, server: EmbeddedServer, eventually: Eventually
) -> None:
    said: list[str] = []
    keeper = ServerKeeper(server, said.append)
    assert keeper.tend() and keeper.tend()
    assert (disk.folder / "reserve").stat().st_size == RESERVE_BYTES
    with contextlib.closing(connect(server.url, role="test")) as client:
        disk.fill()
        answered = write_until_refused(client)
        eventually(lambda: not server.running(), "the end of a server that cannot write")
        eventually(keeper.tend, "the server's return on the reserve")
        assert client.llen("list") in (answered, answered + 1)  # the last may have been written, unanswered
        client.rpush("list", "there is room for what runs")
    assert not (disk.folder / "reserve").exists()
    assert [line for line in said if "reserve" in line] == [
        f"the disk of {disk.folder} is full: free 0 MiB, 16 MiB are needed (No space left on device); "
        "64 MiB of reserve are released, so that running answers can end"
    ]


def test_without_room_it_waits_says_so_once_and_goes_on_by_itself(
    disk: SmallDisk, server: EmbeddedServer, eventually: Eventually
) -> None:
    """`chatserver up` ended with code 2, and room made later did not bring it back."""
    said: list[str] = []
    keeper = ServerKeeper(server, said.append)
    disk.fill()
    for _ in range(3):
        keeper._look_at = 0.0
        assert not keeper.tend()
    assert len(said) == 1 and "everything goes on by itself" in said[0]
    disk.free()
    eventually(keeper.tend, "the start")
    assert said[1:] == ["there is room again: Redis runs, and everything goes on"]
    eventually(lambda: keeper.tend() and (disk.folder / "reserve").exists(), "a new reserve")
