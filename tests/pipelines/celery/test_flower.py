"""Flower as a program of ours: it asks for a login, it is its own probe."""

import subprocess
import sys
from pathlib import Path

import requests

from services.connection.embedded import free_port
from services.places import ROOT
from tests.end_to_end.system import running_system, wait_until


def test_it_asks_for_the_login_and_its_probe_is_content(tmp_path: Path) -> None:
    port = free_port()
    with running_system(tmp_path, port=port, flower_login="ann:a-long-password") as system:
        system.start("pipelines", "flower")
        address = f"http://127.0.0.1:{port}/"
        wait_until(lambda: _status(f"{address}healthcheck") == 200, "Flower", 60)
        assert _status(address) == 401
        assert _status(address, ("ann", "another")) == 401
        assert _status(address, ("ann", "a-long-password")) == 200
        probe = [sys.executable, "-m", "pipelines", "flower", "--check"]
        assert subprocess.run(probe, cwd=ROOT, env=system.environment).returncode == 0


def _status(address: str, login: tuple[str, str] | None = None) -> int:
    try:
        return requests.get(address, auth=login, timeout=5).status_code
    except requests.ConnectionError:
        return 0


def test_it_does_not_start_without_a_login(tmp_path: Path) -> None:
    """Who opens it can stop workers."""
    command = [sys.executable, "-m", "pipelines", "flower"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": "/usr/bin"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "CHATSERVER_FLOWER_LOGIN is empty" in done.stderr
