"""An S3 server as tests need it: moto's, in a process of its own on a free port, without state.

It is set in the environment, where s3fs looks for it, so that processes of the system under test find it too.
"""

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from services.connection.embedded import free_port
from services.machine.processes import end_tied, start_tied
from tests.servers import STOP_TIMEOUT_S, until

BUCKET = "runs"


class S3Server:
    """`environment`: what a process needs to reach it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def client(self) -> s3fs.S3FileSystem:
        """Needs the environment."""
        return s3fs.S3FileSystem(use_listings_cache=False)

    def names(self, prefix: str) -> set[str]:
        return {path.removeprefix(f"{prefix}/") for path in self.client().find(prefix)}

    def num_open_uploads(self) -> int:
        return len(self.client().call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads", ()))


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """A server with the bucket; this process and those that it starts reach it."""
    server = S3Server(free_port())
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)]
    with log.open("wb") as output:
        process = start_tied(command, output=output)
    try:
        until(lambda: server.answers() or process.poll() is not None, "the S3 server")
        assert process.poll() is None, log.read_text()
        s3fs.S3FileSystem.clear_instance_cache()  # clients of an earlier server
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            server.client().mkdir(BUCKET)
            yield server
    finally:
        end_tied(process, signal.SIGKILL, STOP_TIMEOUT_S)
