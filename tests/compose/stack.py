"""The deployment under test: `docker compose` on the project's file, and what hurts it. For tests only."""

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import redis

from services.connection.connect import connect
from services.places import ROOT
from tests.end_to_end.system import answers, wait_until

URL = "http://127.0.0.1:8000"
MODEL = "smollm2-135m"
STARTED_S = 240.0  # two busy cores that load a model


def run(*command: str, **options: Any) -> str:
    """What a command of the host prints; fails with all that it printed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Stack:
    """One deployment of docker-compose.yml."""

    def compose(self, *arguments: str) -> str:
        return run("docker", "compose", *arguments)

    def up(self, *arguments: str) -> None:
        self.compose("up", "--detach", "--wait", "--wait-timeout", f"{STARTED_S:g}", *arguments)

    def execute(self, service: str, *command: str) -> str:
        """A command inside the first container of a service."""
        return self.compose("exec", "-T", service, *command)

    def containers(self, service: str = "") -> list[str]:
        return self.compose("ps", "--quiet", *([service] if service else [])).split()

    def inspect(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(run("docker", "inspect", container))
        return dict(found)

    def kill_main_process(self, container: str) -> None:
        """As the machine's memory killer does it; `docker kill` would count as wanted."""
        os.kill(self.inspect(container)["State"]["Pid"], signal.SIGKILL)

    def wait_for_restart(self, container: str, restarts: int = 1) -> None:
        """Until the restart policy has brought a container back and its probe is content."""

        def recovered() -> bool:
            found = self.inspect(container)
            return found["RestartCount"] >= restarts and found["State"]["Health"]["Status"] == "healthy"

        wait_until(recovered, f"the restart of {container}", STARTED_S)

    def wait_for_page(self) -> None:
        wait_until(lambda: answers(f"{URL}/readyz"), "the page", STARTED_S)

    def wait_for_workers(self, number: int = 1) -> None:
        def present() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{URL}/api/models", timeout=5) as answer:
                rows = json.load(answer)["models"]
                return any(row["name"] == MODEL and row["workers"] >= number for row in rows)
            return False

        wait_until(present, f"{number} workers", STARTED_S)

    def log_lines(self, service: str) -> list[dict[str, Any]]:
        """The JSON lines of all containers of a service; of libraries that write others, those are left out."""
        found = []
        for line in self.compose("logs", "--no-color", "--no-log-prefix", service).splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line[line.index("{") :]))  # Compose begins each with a terminal's `erase line`
        return [line for line in found if isinstance(line, dict)]

    @contextlib.contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """Redis, reached on the bridge: it is published nowhere."""
        (container,) = self.containers("redis")
        (network,) = self.inspect(container)["NetworkSettings"]["Networks"].values()
        password = self.execute("redis", "cat", "/secrets/redis_password")
        with contextlib.closing(connect(f"redis://:{password}@{network['IPAddress']}:6379/0", role="test")) as client:
            yield client
