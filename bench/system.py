"""A whole system of real processes for a measurement: its own Redis, workers, web processes; all on the loopback.

Everything started here ends with the `with` block, and with the bench itself however that ends.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from services.chat.journal import Journal
from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer, Fsync, free_port
from services.machine.processes import end_tied, start_tied
from services.places import ROOT
from services.serving.registry import Registry
from services.wire.keys import Keys

NAMESPACE = "bench"


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float) -> Any:
    """The first true value of `condition`. Raises TimeoutError naming `what`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.02)
    return value


class BenchSystem:
    """Processes by role: `valkey`, `worker`, `web`."""

    def __init__(self, folder: Path, *, appendfsync: Fsync = "always", **settings: object) -> None:
        self.folder = folder
        self.server = EmbeddedServer(folder, appendfsync=appendfsync)
        self._settings = settings
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.server.start()
        self.redis = connect(self.server.url, role="test")
        keys = Keys(NAMESPACE)
        self.registry, self.journal = Registry(self.redis, keys), Journal(self.redis, keys)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for role in list(self._children):
            self.end(role)
            if error is not None:
                words = (self.folder / f"{role}.log").read_text(errors="replace")[-2000:]
                print(f"last words of {role}:\n{words}", file=sys.stderr)
        self.redis.close()
        self.server.stop()

    def start_worker(self, *command: str, timeout_s: float = 90.0) -> None:
        """`python -m command…`; returns once it has announced itself."""
        pid = self._start("worker", *command)
        wait_until(lambda: any(w.pid == pid for w in self.registry.workers()), "the worker's start", timeout_s)

    def start_web(self) -> str:
        """A web process; its address once it is ready."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        self._start("web", "webapp", port=port)
        wait_until(lambda: _answers(f"{url}/readyz"), "the web process", 30.0)
        return url

    def end(self, role: str) -> None:
        """SIGTERM and wait."""
        end_tied(self._children.pop(role), signal.SIGTERM, 15.0)

    def process(self, role: str) -> psutil.Process:
        """For CPU time and memory."""
        return psutil.Process(self.server.pid if role == "valkey" else self._children[role].pid)

    def _start(self, role: str, *command: str, **settings: object) -> int:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CHATSERVER_")}
        environment |= {"REDIS_URL": self.server.url, "CHATSERVER_LOG_LEVEL": "WARNING"}
        one_user = {"max_user_sockets": 10_000, "max_user_submits_per_minute": 10**6}  # is all clients of a bench
        ours = {"namespace": NAMESPACE, "state_dir": self.folder, **one_user, **self._settings, **settings}
        environment |= {f"CHATSERVER_{name.upper()}": str(value) for name, value in ours.items()}
        environment["PYTHONPATH"] = str(ROOT)
        with (self.folder / f"{role}.log").open("ab") as log:
            child = start_tied([sys.executable, "-m", *command], output=log, environment=environment)
        self._children[role] = child
        return child.pid


class CpuMeter:
    """CPU seconds and memory of each process between `start` and `read`."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        self._processes = processes
        self.start()

    def start(self) -> None:
        self._from = {name: _cpu_s(process) for name, process in self._processes.items()}
        self._at = time.monotonic()

    def read(self) -> dict[str, dict[str, float]]:
        """Per process: CPU in % of one core, resident memory in MiB."""
        elapsed_s = time.monotonic() - self._at
        return {
            name: {
                "cpu_percent": round(100 * (_cpu_s(process) - self._from[name]) / elapsed_s, 1),
                "rss_mib": round(process.memory_info().rss / 2**20, 1),
            }
            for name, process in self._processes.items()
        }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def unwind_on_sigterm() -> None:
    """SIGTERM becomes SystemExit, so that whoever started processes ends them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def children(process: psutil.Process) -> list[psutil.Process]:
    """The Python processes that it started, without the helpers of `multiprocessing`."""
    return [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]


def percentile(values: list[float], percent: float) -> float:
    """Nearest rank; nan of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def ended(sock: socket.socket) -> bool:
    """Whether the server has closed this connection, once all that it said is read."""
    sock.setblocking(False)
    try:
        while sock.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False
