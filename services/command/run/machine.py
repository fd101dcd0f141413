"""Runs the whole system on one machine: `chatserver up` starts, watches and ends it here.

Start: Redis, then workers, web app and pipelines side by side. End: workers and pipelines first, so that they hand back
their work, then the web app, then Redis. A second Ctrl-C kills all.
"""

import contextlib
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import redis

from services.command.access import WEB_PORT
from services.command.launch import child_environment, module_command
from services.command.run.children import Child, Log
from services.command.run.extra_workers import ExtraWorkers
from services.connection.connect import connect, wait_for_redis
from services.connection.embedded import EmbeddedServer, free_port
from services.connection.keeper import ServerKeeper
from services.errors import ConfigurationError
from services.jobs.celery_app import SOFT_SHUTDOWN_S
from services.machine.files import close_to_others, write
from services.machine.ports import near, refusal
from services.machine.signals import hearing
from services.serving.registry import Registry
from services.serving.trained_models import TrainedModels
from services.settings import Settings, variable_of
from services.wire.keys import Keys

POLL_S = 0.1
DEATHS_AT_START = 3  # of one process before the page was ever usable: then something is wrong
WEB_END_S = 5.0
MOST_CLEANING = 2  # processes
DRAIN_SPARE_S = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Machine:
    """A context manager. When it is left, every process that it started has ended."""

    def __init__(self, settings: Settings, workers: int, *, pipelines: bool = True) -> None:
        self._settings = settings
        self._log = Log()
        self._signals = 0
        self._stop = threading.Event()
        self._started_at = time.monotonic()
        self._ready = False
        self._port = settings.port or free_port()
        own = "redis_url" in settings.model_fields_set
        self._server = None if own else EmbeddedServer(settings.state_dir, stopping=self._stop)
        self._keeper = ServerKeeper(self._server, self._say) if self._server else None
        self._num_workers = workers
        self._workers: list[Child] = []
        self._extras: ExtraWorkers | None = None
        self._web: Child | None = None
        self._with_pipelines = pipelines
        self._pipelines: list[Child] = []

    def __enter__(self) -> Self:
        self._signals_heard = hearing(SIGNALS, self._interrupt)
        self._signals_heard.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end_all()
        finally:
            self._signals_heard.__exit__(kind, error, trace)

    def _interrupt(self, number: int) -> None:
        self._signals += 1
        self._stop.set()

    def run(self) -> None:
        """Run until a signal comes. Raises ConfigurationError when a process cannot start."""
        _check_port(self._settings.host, self._port)
        if not (url := self._start_redis()):
            return
        with contextlib.closing(connect(url, role="command")) as client:
            if not wait_for_redis(client, self._say, self._stop):
                return
            self._make_children(url, TrainedModels(client, Keys(self._settings.namespace)))
            while not self._stop.wait(POLL_S):
                self._tend(client)

    def _say(self, line: str) -> None:
        self._log.line("up", line)

    # -- start ---------------------------------------------------------------------------------------------------

    def _start_redis(self) -> str:
        """The URL of Redis; empty when a signal came before its disk had room."""
        if self._server is None or self._keeper is None:
            return self._settings.redis_url
        if opened := close_to_others(self._settings.state_dir):
            self._say(opened)
        while not self._keeper.tend():
            if self._stop.wait(POLL_S):
                return ""
        self._say(f"Redis: {self._server.address}, data in {self._server.folder}")
        return self._server.url

    def _make_children(self, url: str, trained: TrainedModels) -> None:
        chosen = {name: getattr(self._settings, name) for name in ("model", "engine", "slots", "host", "state_dir")}
        environment = child_environment(**chosen, redis_url=url, port=self._port)
        names = [f"worker-{number + 1}" for number in range(self._num_workers)]
        self._workers = [Child(name, module_command("workers"), environment, self._log) for name in names]
        self._extras = ExtraWorkers(
            trained,
            self._settings.extra_workers,
            lambda model, number: Child(
                f"extra-{number}", [*module_command("workers"), "--standby", model], dict(environment), self._log
            ),
            self._say,
        )
        self._web = Child("web", module_command("webapp"), environment, self._log)
        if self._with_pipelines:
            # Chat comes first: cleaning gets half of the machine and two processes at most, unless told otherwise.
            processes = self._settings.clean_processes or min((os.cpu_count() or 2) // 2, MOST_CLEANING) or 1
            environment[variable_of("clean_processes")] = str(processes)
            for name, role in (("cleaner", "worker"), ("trainer", "trainings"), ("beat", "beat")):
                self._pipelines.append(Child(name, [*module_command("pipelines"), role], environment, self._log))

    # -- watch ---------------------------------------------------------------------------------------------------

    def _tend(self, client: redis.Redis) -> None:
        assert self._web is not None
        if self._keeper is not None:
            self._keeper.tend()
        for child in self._pipelines:
            child.tend()
        for child in (*self._workers, self._web):
            child.tend()
            if not self._ready and child.num_deaths >= DEATHS_AT_START:
                words = "\n".join(f"  {line}" for line in child.last_lines)
                raise ConfigurationError(
                    f"{child.name} died {DEATHS_AT_START} times at the start; its last words:\n{words}"
                )
        self._tend_extras()
        if not self._ready and (models := self._served(client)) and self._page_answers():
            self._ready = True
            self._announce(models)

    def _tend_extras(self) -> None:
        """Start the pipelines after the page is usable: they must not delay the first worker."""
        if self._ready and self._extras is not None:
            with contextlib.suppress(redis.RedisError):  # then they stay as they are
                self._extras.tend()

    def _served(self, client: redis.Redis) -> list[str]:
        """The models that this run's workers announce: Redis may still hold presence of an earlier run."""
        pids, host = {child.pid for child in self._workers}, socket.gethostname()
        try:
            found = Registry(client, Keys(self._settings.namespace)).workers()
        except redis.RedisError:
            return []
        return sorted({worker.model for worker in found if worker.pid in pids and worker.host == host})

    def _page_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._local_address}/readyz", timeout=2) as answer:
                return int(answer.status) == 200
        except (OSError, urllib.error.URLError):
            return False

    @property
    def _local_address(self) -> str:
        host = near(self._settings.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    def _announce(self, models: Sequence[str]) -> None:
        took_s = time.monotonic() - self._started_at
        self._say(f"ready in {took_s:.1f} s: {', '.join(models)} on {self._num_workers} worker(s)")
        with contextlib.suppress(OSError):  # then the doctor looks at the default port
            write(self._settings.state_dir / WEB_PORT, str(self._port).encode())
        self._say(f"open {self._local_address}   (Ctrl-C ends everything)")
        if self._settings.accounts == "on":
            from services.command.run.first_admin import invitation_line  # the database: half a second

            if line := invitation_line(self._settings, self._local_address):
                self._say(line)

    # -- end -----------------------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        if self._workers:
            self._say("ending: the workers first, which hand their requests back; Ctrl-C again kills all")
            extras = self._extras.children if self._extras else ()
            self._end(
                [*self._workers, *extras, *self._pipelines],
                max(self._settings.drain_s, SOFT_SHUTDOWN_S) + DRAIN_SPARE_S,
            )
        if self._web is not None:
            self._end([self._web], WEB_END_S)
        if self._server is not None:
            self._server.stop()
        if self._workers:
            self._say("ended")

    def _end(self, children: Sequence[Child], timeout_s: float) -> None:
        for child in children:
            child.terminate()
        deadline = time.monotonic() + timeout_s
        while self._signals < 2 and time.monotonic() < deadline and not all(child.gone() for child in children):
            time.sleep(0.02)
        for child in children:
            if not child.gone():
                self._say(f"{child.name} did not end by itself; killed")
            child.finish()


def _check_port(host: str, port: int) -> None:
    """Raise at once when the port is taken, rather than after three deaths of the web app."""
    if (error := refusal(host, port)) is not None:
        raise ConfigurationError(
            f"port {port} on {host} cannot be used: {error.strerror}; choose another, or --port 0 for a free one"
        )
