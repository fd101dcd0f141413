"""A `chatserver up` as people start it, with workers beside it that repeat what they are asked. For tests/clients."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.connection.embedded import free_port, running_url
from services.places import ROOT
from tests.end_to_end.system import answers, wait_until

COMMAND = str(Path(sys.executable).parent / "chatserver")
END_S = 60.0


class Installation:
    """Its Redis, its worker with the packaged model, its web app and its pipelines; further workers as asked."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._environment = {
            **os.environ,
            "CHATSERVER_STATE_DIR": str(folder / "state"),
            "CHATSERVER_PORT": str(port),
            **{f"CHATSERVER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._processes = [self._start("up", [COMMAND, "up"])]

    def wait_until_ready(self) -> None:
        wait_until(lambda: self._is_alive() and "ready in" in self.log, "the start of `chatserver up`", 120.0, 0.1)

    def repeat(self, model: str, *options: str) -> None:
        """Start a worker that serves under this name what it is asked."""
        environment = {**self._environment, "REDIS_URL": running_url(self._folder / "state")}
        command = [sys.executable, "-m", "tests.stand_ins.synthetic_worker", "--model", model, *options]
        self._processes.append(self._start(model, command, environment))

    def command(self, *arguments: str) -> str:
        """What a command says that a person types beside it."""
        done = subprocess.run(
            [COMMAND, *arguments], env=self._environment, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def log(self) -> str:
        return (self._folder / "up.log").read_text("utf-8", "replace")

    def end(self) -> None:
        """As Ctrl-C does it."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            process.kill()
            process.wait()

    def _start(
        self, name: str, command: list[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment or self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    def _is_alive(self) -> bool:
        assert self._processes[0].poll() is None, self.log
        return answers(f"{self.url}/readyz")


@contextlib.contextmanager
def running_installation(folder: Path, **settings: Any) -> Iterator[Installation]:
    installation = Installation(folder, **settings)
    try:
        installation.wait_until_ready()
        yield installation
    finally:
        installation.end()
