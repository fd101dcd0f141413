"""A SkyPilot API server with a HOME of its own, so that it knows nothing of the clouds and clusters of who runs it."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from services.connection.embedded import free_port
from services.machine.environments import Environment
from services.machine.processes import end_tied, is_alive, start_tied

READY_S = 180.0
ATTEMPTS = 2  # on an overloaded machine its queues can be late, and then it gives up
PLUGIN = Path(__file__).parent / "server_plugin"
LISTS = "['AWS', 'GCP', 'Azure', 'Lambda', 'Slurm']"


class ApiServer:
    """`client` are the variables with which a process talks to this server and no other."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.python = Environment("sky").python()
        self.port = _free_ports()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = {
            "HOME": str(home),
            "SKYPILOT_USER_ID": f"{self.port:08x}",  # else that of the user in the real HOME
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(self.port),
            "SKYPILOT_API_SERVER_ENDPOINT": self.url,
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        }
        self.log = home / "api-server.log"
        self._configure()
        self._process = self._start(ATTEMPTS)

    def _configure(self) -> None:
        sky = self.home / ".sky"
        catalogue = sky / "catalogs/v8/common"  # else fetched from GitHub
        catalogue.mkdir(parents=True)
        (self.home / "tmp").mkdir()
        (self.home / "user-id").write_text(self.client["SKYPILOT_USER_ID"])
        (catalogue / "accelerators.csv").write_text(f'AcceleratorName,Clouds\nA100-80GB,"{LISTS}"\nA100,"{LISTS}"\n')
        (sky / "config.yaml").write_text("jobs: {controller: {consolidation_mode: true}}\n")
        probe = f"{self.url}/api/health"
        (sky / "plugins.yaml").write_text(
            f"plugins: [{{class: offline_lab.OfflineLab, parameters: {{probe_url: '{probe}'}}}}]\n"
        )

    def _start(self, attempts: int) -> subprocess.Popen[bytes]:
        command = [str(self.python), "-m", "sky.server.server", "--host=127.0.0.1", f"--port={self.port}"]
        environment = {**os.environ, **self.client, "PYTHONPATH": str(PLUGIN), "TMPDIR": str(self.home / "tmp")}
        environment.pop("SKYPILOT_API_SERVER_ENDPOINT")  # that is for clients
        with self.log.open("ab") as log:
            process = start_tied(command, output=log, environment=environment)
        end = time.monotonic() + READY_S
        while time.monotonic() < end and process.poll() is None:
            if self.healthy():
                return process
            time.sleep(0.3)
        end_tied(process, signal.SIGTERM, 10)
        if attempts > 1:
            return self._start(attempts - 1)
        raise RuntimeError(f"the API server did not start: {self.log.read_text(errors='replace')[-3000:]}")

    def healthy(self) -> bool:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{self.url}/api/health"):
            return True
        return False

    def stop(self) -> None:
        """At once: in half a minute it would end in good order, for which nobody here has a use.

        The controllers of managed jobs are not in its process group; it writes down their ids.
        """
        end_tied(self._process, signal.SIGKILL, 10)
        with contextlib.suppress(FileNotFoundError):
            for line in (self.home / ".sky/job_controller_pid").read_text().splitlines():
                end_controller(int(line.partition(",")[0]))


def _free_ports() -> int:
    """A free port for which that of the server's queues is free, too; SkyPilot reckons it from the first."""
    while True:
        port = free_port()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 50_000 + (port - 46_580 + 11) % 10_000))
            return port


def end_controller(pid: int) -> None:
    if is_alive(pid) and b"sky.jobs.controller" in Path(f"/proc/{pid}/cmdline").read_bytes():
        os.kill(pid, signal.SIGTERM)
