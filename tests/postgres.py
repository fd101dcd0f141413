"""A PostgreSQL server as tests need it: Debian's programs, a cluster of its own in a folder, on loopback.

PostgreSQL refuses to run as root, so root runs it as the user `postgres`. It ends with the test process.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from services.connection.embedded import free_port
from services.machine.processes import end_tied, start_tied
from tests.servers import until

USER = "postgres"
STOP_TIMEOUT_S = 10.0


def programs() -> Path | None:
    """The folder of the newest server's programs; None where no server is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class PostgresServer:
    """One server; `start` and `kill` may alternate, the data stay."""

    def __init__(self) -> None:
        found = programs()
        if found is None:
            pytest.skip("no PostgreSQL server on this machine: install Debian's package `postgresql`")
        self._programs = found
        self._folder = Path(tempfile.mkdtemp(prefix="chatserver-postgres-"))  # those of pytest are closed to the user
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self.port = free_port()
        self._as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.getuid() == 0 else []
        self._process: subprocess.Popen[bytes] | None = None
        if self._as_user:
            shutil.chown(self._folder, USER)
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        made = [*self._as_user, str(found / "initdb"), "-D", str(self._data), *options]
        subprocess.run(made, check=True, capture_output=True, cwd="/")
        self.start()

    def start(self) -> None:
        where = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        command = [*self._as_user, str(self._programs / "postgres"), "-D", str(self._data), *where, "-c", "fsync=off"]
        with self._log.open("ab") as log:
            self._process = start_tied(command, output=log)
        until(self._answers, f"PostgreSQL: {self._log.read_text()[-500:]}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """By default at once, and in order. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            end_tied(process, how, STOP_TIMEOUT_S)

    def close(self) -> None:
        """Stop for good; the data go."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def url(self, name: str = USER) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def create(self, name: str, template: str = "template1") -> str:
        """A new database; its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True
