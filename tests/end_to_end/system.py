"""A whole system of real processes: its own Redis, synthetic workers, web processes. For tests only."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, ClassVar

import engineio
import redis
import requests
import socketio

from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer, Fsync, free_port
from services.places import ROOT
from services.serving.registry import Registry
from services.wire.keys import Keys


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0, pause_s: float = 0.01) -> Any:
    """The first true value of `condition`; fails naming `what`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(pause_s)
    return value


class System:
    """Processes by name. Everything that was started has ended when `close` returns."""

    new_database: ClassVar[Callable[[], str] | None] = None  # the URL of one on PostgreSQL, with `--postgres`

    def __init__(
        self,
        folder: Path,
        namespace: str = "sys",
        *,
        appendfsync: Fsync = "no",
        binary: Path | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        made = System.new_database() if System.new_database else ""
        self.database_url = made or f"sqlite:///{folder}/chatserver.db"
        self.keys = Keys(namespace)
        self.server = EmbeddedServer(folder, binary=binary, appendfsync=appendfsync)
        self.server.start()
        self.redis: redis.Redis = connect(self.server.url, role="test")
        self.registry = Registry(self.redis, self.keys)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CHATSERVER_")},
            "REDIS_URL": self.server.url,
            "CHATSERVER_NAMESPACE": namespace,
            "CHATSERVER_STATE_DIR": str(folder),
            "DATABASE_URL": self.database_url,
            **{f"CHATSERVER_{name.upper()}": str(value) for name, value in settings.items()},
        }

    def start(self, *command: str, redis_url: str = "", **settings: Any) -> subprocess.Popen[bytes]:
        """A Python module as a process; `redis_url` when it reaches Redis another way than directly."""
        extra = {f"CHATSERVER_{name.upper()}": str(value) for name, value in settings.items()}
        if redis_url:
            extra["REDIS_URL"] = redis_url
        log = (self.folder / f"process-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**self.environment, **extra},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        self.processes.append(process)
        return process

    def echo_worker(self, *options: str) -> subprocess.Popen[bytes]:
        """A worker that repeats the last message; waits until it is announced."""
        process = self.start("tests.stand_ins.synthetic_worker", *options)
        self.wait_for_worker(process)
        return process

    def wait_for_worker(self, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> None:
        wait_until(
            lambda: any(worker.pid == process.pid for worker in self.registry.workers()), "the worker", timeout_s
        )

    def web(self, **settings: Any) -> str:
        """A web process; its address, once it is ready."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        self.start("webapp", port=port, **settings)
        wait_until(lambda: answers(f"{url}/readyz"), "the web process", 60.0)
        return url

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        self.redis.close()
        self.server.stop()


def answers(url: str) -> bool:
    """Whether an HTTP address answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class OrderedEngine(engineio.Client):
    """The library handles each message in a new thread, in whatever order those run. We need that of the wire."""

    def _trigger_event(self, event: str, *args: Any, **kwargs: Any) -> Any:
        return super()._trigger_event(event, *args, **{**kwargs, "run_async": False})


class OrderedClient(socketio.Client):
    def _engineio_client_class(self) -> type[engineio.Client]:
        return OrderedEngine


class Browser:
    """A socket client that keeps the rules of docs/protocol.md and remembers what it was sent."""

    def __init__(self, url: str, cookie: str = "", transport: str = "websocket") -> None:
        self.url = url
        self.cookie = cookie or session_cookie(url)
        self.text: dict[str, str] = {}
        self.parts: dict[str, dict[str, str]] = {}  # of each answer, the text of each part
        self.nonce: dict[str, str] = {}
        self.done: dict[str, list[dict[str, Any]]] = {}
        self.statuses: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self._lock = threading.Lock()
        http = requests.Session()
        http.headers["Cookie"] = self.cookie  # polling: with every request, as a browser sends it
        self.client = OrderedClient(reconnection=False, http_session=http)
        self.client.on("tokens", self._tokens)
        self.client.on("rewind", self._rewind)
        self.client.on("done", self._done)
        self.client.on("status", self.statuses.append)
        self.client.connect(url, headers={"Cookie": self.cookie}, transports=[transport])

    def _tokens(self, event: dict[str, Any]) -> None:
        with self._lock:
            text = self.text.setdefault(event["id"], "")
            if event["offset"] != len(text):
                self.problems.append(f"tokens at {event['offset']}, have {len(text)}")
            self.text[event["id"]] = text + event["text"]
            parts, part = self.parts.setdefault(event["id"], {}), event.get("part", "answer")
            parts[part] = parts.get(part, "") + event["text"]
            self.nonce[event["id"]] = event["nonce"]
        self.client.emit("received", {"id": event["id"], "offset": len(self.text[event["id"]])})

    def _rewind(self, event: dict[str, Any]) -> None:
        with self._lock:
            self.problems.append(f"rewind to {event['offset']}")
            self.text[event["id"]] = self.text[event["id"]][: event["offset"]]

    def _done(self, event: dict[str, Any]) -> None:
        self.done.setdefault(event["id"], []).append(event)
        if event["offset"] != len(self.text.get(event["id"], "")):
            self.problems.append(f"done at {event['offset']}, have {len(self.text.get(event['id'], ''))}")

    def call(self, event: str, payload: Any) -> Any:
        return self.client.call(event, payload, timeout=10)

    def ask(self, rid: str, text: str, model: str = "echo", **sampling: Any) -> Any:
        return self.call(
            "submit",
            {"id": rid, "model": model, "messages": [{"role": "user", "content": text}], "sampling": sampling},
        )

    def wait_for_text(self, rid: str, length: int, timeout_s: float = 20.0) -> str:
        wait_until(lambda: len(self.text.get(rid, "")) >= length, f"{length} characters of {rid}", timeout_s)
        return self.text[rid]

    def wait_for_done(self, rid: str, timeout_s: float = 30.0) -> dict[str, Any]:
        wait_until(lambda: self.done.get(rid), f"the end of {rid}", timeout_s)
        return self.done[rid][0]

    def close(self) -> None:
        self.client.disconnect()


def session_cookie(url: str) -> str:
    """The cookie of a fresh visitor."""
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    opener.open(f"{url}/api/session", timeout=5).close()
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)


@contextlib.contextmanager
def running_system(folder: Path, **settings: Any) -> Iterator[System]:
    system = System(folder, **settings)
    try:
        yield system
    finally:
        system.close()
