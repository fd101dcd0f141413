"""Redis and web as infra/sky/serve-redis-web.yaml runs them: for real, on loopback, with a web app that only sleeps."""

import os
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml
from redis.exceptions import NoPermissionError

from services.connection.connect import connect
from services.connection.embedded import free_port
from services.jobs.jobs import Jobs
from services.places import ROOT
from services.serving.registry import Registry
from services.wire.keys import Keys
from tests.conftest import wait_until

PASSWORD = "0123456789abcdef~"
WEB = """#!/usr/bin/env bash
echo "$REDIS_URL" > "$HOME/web-url"
env > "$HOME/web-env"
echo $$ > "$HOME/web-pid"
trap 'touch "$HOME/web-ended"; exit 0' TERM
while true; do sleep 0.05; done
"""


def has_tls() -> bool:
    """Whether this machine has a Redis of version 7 or newer with TLS, and what else the script asks for."""
    if not all(map(shutil.which, ("redis-server", "redis-cli", "openssl"))):
        return False
    answer = subprocess.run(
        ["redis-server", "-"],
        input="port 0\ntls-port 0\ntls-auth-clients no\nloglevel bogus\n",
        capture_output=True,
        text=True,
        check=False,
    )
    return "tls-auth-clients" not in answer.stderr


pytestmark = pytest.mark.skipif(not has_tls(), reason="needs redis-server with TLS, redis-cli and openssl")


class Server:
    """The machine of serve-redis-web.yaml: its home, its project, its run section."""

    def __init__(self, folder: Path) -> None:
        self.home, self.project = folder / "home", folder / "project"
        (self.project / "webapp" / "static").mkdir(parents=True)
        self.home.mkdir()
        (self.project / "infra").symlink_to(ROOT / "infra")
        self.page = self.project / "webapp" / "static" / "app.js"
        self.page.touch()
        self.python = folder / "python"
        self.python.write_text(WEB)
        self.python.chmod(0o755)
        self.port = free_port()
        self.ca = self.home / "redis" / "tls" / "ca.crt"
        self._process: subprocess.Popen[str] | None = None

    def start(self, password: str = PASSWORD) -> subprocess.Popen[str]:
        task = yaml.safe_load((ROOT / "infra" / "sky" / "serve-redis-web.yaml").read_text("utf-8"))
        machine = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHON": str(self.python),
            "REDIS_BIND": "127.0.0.1",
            "REDIS_TLS_PORT": str(self.port),
            "REDIS_PASSWORD": password,
        }
        self._process = subprocess.Popen(
            ["bash", "-c", task["run"]],
            cwd=self.project,
            env={**task["envs"], **machine},
            start_new_session=True,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        return self._process

    def url(self, password: str = PASSWORD, user: str = "") -> str:
        """As serve-worker.yaml makes it."""
        return f"rediss://{user}:{password}@127.0.0.1:{self.port}/0?ssl_ca_certs={self.ca}&ssl_check_hostname=false"

    def answers(self) -> bool:
        if not self.ca.exists():
            return False
        try:
            with connect(self.url(), role="test") as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def ready(self) -> None:
        wait_until(lambda: self.answers() and (self.home / "web-pid").exists(), "Redis and the web app run", 30)

    def end(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


@pytest.fixture
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="sky-"))  # a socket's path must be short
    server = Server(folder)
    yield server
    server.end()
    shutil.rmtree(folder)


def test_a_worker_reaches_redis_over_tls_with_the_password(server: Server) -> None:
    server.start()
    server.ready()
    with connect(server.url(), role="test") as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with connect(server.url("another-password-x"), role="test") as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_a_worker_comes_in_with_a_password_of_its_own_that_stays_and_orders_no_job(server: Server) -> None:
    file = server.home / "redis" / "worker_password"
    server.start()
    server.ready()
    password, keys = file.read_text().strip(), Keys("chatserver")
    assert len(password) == 64 and password != PASSWORD and file.stat().st_mode & 0o777 == 0o600
    with connect(server.url(password, "worker"), role="worker") as client:
        assert Registry(client, keys).workers() == []
        with pytest.raises(NoPermissionError):
            Jobs(client, keys).submit("j1", "clean", "j1", {})
        with pytest.raises(NoPermissionError):
            client.config_get("dir")
    server.end()
    server.start()
    server.ready()
    with connect(server.url(password, "worker"), role="worker") as client:
        assert client.ping() and file.read_text().strip() == password


def test_nobody_comes_in_without_tls_or_takes_another_for_our_redis(server: Server) -> None:
    server.start()
    server.ready()
    with redis.Redis(port=server.port, password=PASSWORD, retry=None) as plain, pytest.raises(redis.ConnectionError):
        plain.ping()
    unknown = server.url().replace(f"ssl_ca_certs={server.ca}&", "")
    with connect(unknown, role="test") as client, pytest.raises(redis.ConnectionError) as refusal:
        client.ping()
    assert isinstance(refusal.value.__cause__, ssl.SSLError) or "certificate" in str(refusal.value).lower()


def test_the_web_app_talks_to_redis_inside_the_machine(server: Server) -> None:
    server.start()
    server.ready()
    with connect((server.home / "web-url").read_text().strip(), role="test") as client:
        assert client.ping()
    assert "REDIS_PASSWORD=" not in (server.home / "web-env").read_text()


def test_a_redis_that_was_killed_is_started_again_with_everything_it_had(server: Server) -> None:
    server.start()
    server.ready()
    with connect(server.url(), role="test") as client:
        client.set("kept", "yes")
        pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        if not server.answers():
            return False
        with connect(server.url(), role="test") as client:
            return int(client.info("server")["process_id"]) != pid

    wait_until(back, "Redis is back", 30)
    with connect(server.url(), role="test") as client:
        assert client.get("kept") == b"yes"


def test_a_web_app_that_died_is_started_again(server: Server) -> None:
    server.start()
    server.ready()
    pid = (server.home / "web-pid").read_text()
    os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: (server.home / "web-pid").read_text() not in ("", pid), "another web app runs", 30)


def test_sigterm_ends_both_and_the_next_start_knows_the_same_certificate(server: Server) -> None:
    process = server.start()
    server.ready()
    known = server.ca.read_text()
    process.terminate()
    assert process.wait(30) == 0
    assert (server.home / "web-ended").exists() and not server.answers()
    server.end()
    server.start()
    server.ready()
    assert server.ca.read_text() == known
    assert not (server.home / "redis" / "tls" / "ca.key").exists()


@pytest.mark.parametrize("password", ["", "short", "sixteen letters and blanks"])
def test_a_password_that_anybody_guesses_or_that_breaks_an_address_is_refused(server: Server, password: str) -> None:
    process = server.start(password)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2 and "openssl rand -hex 32" in said


def test_a_page_that_was_not_built_is_named(server: Server) -> None:
    server.page.unlink()
    process = server.start()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2 and "make page" in said
