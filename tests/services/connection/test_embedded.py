"""The private server: it keeps its data, refuses a second instance and never outlives the process that started it."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from services.connection.connect import connect
from services.connection.embedded import (
    PASSWORD_FILE,
    EmbeddedServer,
    candidates,
    find_binary,
    free_port,
    running_url,
)
from services.errors import ConfigurationError
from tests.end_to_end.system import wait_until

STARTER = """
import sys
from services.connection.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1], binary=sys.argv[2])
server.start()
print(server.pid, server.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> Path:
    if request.param not in candidates():
        pytest.skip(f"no {request.param}-server on this machine")
    return candidates()[request.param]


def client_of(server: EmbeddedServer) -> contextlib.closing[redis.Redis]:
    return contextlib.closing(connect(server.url, role="test"))


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_data_survives_a_stop_and_a_kill(tmp_path: Path, binary: Path) -> None:
    server = EmbeddedServer(tmp_path, binary=binary)
    with server, client_of(server) as client:
        client.set("a", "1")
        port = server.port
    with server, client_of(server) as client:
        assert (client.get("a"), server.port) == (b"1", port)
        client.set("b", "2")
        server.kill()
    with server, client_of(server) as client:
        assert client.mget("a", "b") == [b"1", b"2"]


def test_a_later_run_over_the_same_folder_takes_the_same_port_unless_it_is_taken(tmp_path: Path) -> None:
    """A client that outlives `chatserver up` finds its answer again after the next one."""
    with EmbeddedServer(tmp_path / "one") as first:
        port = first.port
    with EmbeddedServer(tmp_path / "one") as second:
        assert second.port == port
    with EmbeddedServer(tmp_path / "two", port=port), EmbeddedServer(tmp_path / "one") as third:
        assert third.port != port


def test_it_is_durable_and_never_evicts(tmp_path: Path, binary: Path) -> None:
    with EmbeddedServer(tmp_path, binary=binary) as server, client_of(server) as client:
        found = client.config_get("append*") | client.config_get("maxmemory-policy") | client.config_get("bind")
    assert found["appendonly"] == "yes"
    assert found["appendfsync"] == "always"
    assert found["maxmemory-policy"] == "noeviction"
    assert found["bind"] == "127.0.0.1"


def test_a_restart_rewrites_the_append_only_file(tmp_path: Path, binary: Path) -> None:
    """Guards hole 4: Redis 7.0 applies a transaction cut in half on the start after the one that dropped it."""
    server = EmbeddedServer(tmp_path, binary=binary)
    with server, client_of(server) as client:
        assert client.info("persistence")["aof_rewrites"] == 0
        client.set("whole", "1")
    newest = max((server.folder / "appendonlydir").glob("*.incr.aof"))
    with newest.open("ab") as file:
        file.write(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1\r\n1\r\n*3\r\n$3\r\nSE")
    for _ in range(2):
        with server, client_of(server) as client:
            assert client.info("persistence")["aof_rewrites"] == 1
            assert client.mget("whole", "half") == [b"1", None]


def test_a_second_instance_on_the_same_folder_is_refused(tmp_path: Path, binary: Path) -> None:
    with EmbeddedServer(tmp_path, binary=binary) as server, client_of(server) as client:
        with pytest.raises(ConfigurationError, match="in use by another server"):
            EmbeddedServer(tmp_path, binary=binary).start()
        assert client.ping()


def test_a_stale_lock_file_is_no_obstacle(tmp_path: Path, binary: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    (folder / "lock").write_text("4194303")
    with EmbeddedServer(tmp_path, binary=binary) as server:
        assert server.running()


def test_it_dies_with_a_parent_killed_by_sigkill_and_can_be_started_again(tmp_path: Path, binary: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path), str(binary)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, port = map(int, parent.stdout.readline().split())
        assert lives(pid)
        parent.send_signal(signal.SIGKILL)
    with EmbeddedServer(tmp_path, port=port, binary=binary) as server:  # waits for the old one to be gone
        assert server.running()
        assert not lives(pid)


def test_it_dies_with_a_parent_that_forgot_to_stop_it(tmp_path: Path, eventually: Callable[..., None]) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path), str(find_binary())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        pid = int(parent.stdout.readline().split()[0])
        parent.stdin.close()
    eventually(lambda: not lives(pid), "the end of the server")


def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)


def test_a_server_killed_by_others_is_noticed_and_can_be_started_again(
    tmp_path: Path, binary: Path, eventually: Callable[..., None]
) -> None:
    with EmbeddedServer(tmp_path, binary=binary) as server:
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.running(), "the end of the server")
        server.start()
        with client_of(server) as client:
            assert client.ping()


def test_a_port_in_use_is_refused_with_the_servers_own_words(tmp_path: Path, binary: Path) -> None:
    with (
        EmbeddedServer(tmp_path / "one", binary=binary) as server,
        pytest.raises(ConfigurationError, match="already in use"),
    ):
        EmbeddedServer(tmp_path / "two", port=server.port, binary=binary).start()


def test_stop_leaves_no_process_and_may_be_repeated(
    tmp_path: Path, binary: Path, eventually: Callable[..., None]
) -> None:
    server = EmbeddedServer(tmp_path, port=free_port(), binary=binary)
    server.start()
    group = server.pid
    server.stop()
    server.stop()
    members = [path for path in Path("/proc").glob("[0-9]*") if group_of(path) == group and lives(int(path.name))]
    assert not server.running()
    eventually(lambda: not any(lives(int(path.name)) for path in members), "the end of the watcher")


def group_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[2])
    except OSError:
        return 0


def test_it_waits_for_a_server_that_still_loads_its_data(tmp_path: Path, binary: Path) -> None:
    """Redis answers INFO meanwhile; the rewrite that follows was refused, and that ended `chatserver up`."""
    with EmbeddedServer(tmp_path, binary=binary, appendfsync="no") as server, client_of(server) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(20_000):
            pipe.set(f"key-{number}", "x" * 100)
        pipe.execute()
    load_slowly(server, 50)
    with EmbeddedServer(tmp_path, binary=binary) as later, client_of(later) as client:
        assert client.dbsize() == 20_000


def load_slowly(server: EmbeddedServer, delay_us: int) -> None:
    """Its next start takes so long for each key: a setting for tests of Redis itself."""
    included = server.folder / PASSWORD_FILE
    included.write_text(f"key-load-delay {delay_us}\n" + included.read_text())


def test_a_start_that_waits_for_much_data_ends_when_it_is_told_to(tmp_path: Path, binary: Path) -> None:
    """`chatserver up` heard Ctrl-C only after Redis had read all of its data."""
    with EmbeddedServer(tmp_path, binary=binary, appendfsync="no") as server, client_of(server) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(40_000):
            pipe.set(f"key-{number}", "x")
        pipe.execute()
    load_slowly(server, 1_000)  # 40 s in all
    stopping = threading.Event()
    later = EmbeddedServer(tmp_path, binary=binary, stopping=stopping)
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(later.start)
        wait_until(lambda: running_url(tmp_path) is not None and loads(later), "the loading", 60)
        begun = time.monotonic()
        stopping.set()
        assert started.result(30) is False and time.monotonic() - begun < 15
    assert not later.running() and running_url(tmp_path) is None
    with EmbeddedServer(tmp_path / "again", binary=binary) as again:
        assert again.start(), "it runs already"


def loads(server: EmbeddedServer) -> bool:
    with client_of(server) as client:
        try:
            return bool(client.info("persistence")["loading"])
        except redis.RedisError:
            return False


# -- other users of the machine --------------------------------------------------------------------------------------


def test_whoever_lacks_the_password_reads_and_writes_nothing(tmp_path: Path, binary: Path) -> None:
    """Any user of the machine can reach a port on the loopback."""
    with EmbeddedServer(tmp_path, binary=binary) as server, redis.Redis(port=server.port, protocol=2) as stranger:
        for command in ("GET a", "FLUSHALL", "CONFIG GET requirepass", "SUBSCRIBE control"):
            with pytest.raises(redis.AuthenticationError):
                stranger.execute_command(*command.split())


def test_no_other_user_can_find_the_password(tmp_path: Path, binary: Path) -> None:
    """Not in a file, nor on a command line, nor in the log, nor in the name that messages give to the server."""
    with EmbeddedServer(tmp_path / "state", binary=binary) as server:
        password = urlsplit(server.url).password
        command_line = Path(f"/proc/{server.pid}/cmdline").read_text()
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (server.folder, server.folder / PASSWORD_FILE)]
    assert password and password not in command_line + server.log_path.read_text() + server.address
    assert modes == [0o700, 0o600]


def test_a_folder_of_an_older_version_goes_on_with_its_data_and_gets_a_password(tmp_path: Path, binary: Path) -> None:
    with EmbeddedServer(tmp_path, binary=binary) as server, client_of(server) as client:
        client.set("a", "1")
    (server.folder / PASSWORD_FILE).unlink()
    server.folder.chmod(0o755)
    with EmbeddedServer(tmp_path, binary=binary) as later, client_of(later) as client:
        assert client.get("a") == b"1" and urlsplit(later.url).password
        assert stat.S_IMODE(later.folder.stat().st_mode) == 0o700


def test_a_later_run_takes_the_same_password_so_that_its_clients_may_outlive_it(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        assert running_url(tmp_path) == server.url
    assert running_url(tmp_path) is None
    with EmbeddedServer(tmp_path) as later:
        assert running_url(tmp_path) == later.url == server.url
