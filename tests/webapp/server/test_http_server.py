"""The HTTP server's own bounds, where a real process cannot be asked: all of a test's connections are local."""

import contextlib
from collections.abc import Iterator

import pytest
from gevent import socket

from webapp.server.http_server import Server
from webapp.server.inbox import Inbox


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(
        ("127.0.0.1", 0),
        lambda _, start_response: (start_response("204 No Content", []), [])[1],
        Inbox(10**6),
        max_body_bytes=1000,
        internet_address=lambda peer: "1.1.1.1" if peer == "127.0.0.1" else "",
        max_address_connections=2,
    )
    made.start()
    yield made
    made.stop(timeout=0)


def dialled(server: Server) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.server_port), timeout=5)
    made.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return made


def test_one_address_takes_so_many_connections_and_no_more(server: Server) -> None:
    """One address could take all, and nobody else got in."""
    with contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(contextlib.closing(dialled(server))) for _ in range(3))
        assert first.recv(1000).startswith(b"HTTP/1.1 204") and second.recv(1000).startswith(b"HTTP/1.1 204")
        refused = third.recv(1000)
        assert refused.startswith(b"HTTP/1.1 429 ") and b"connections of your address" in refused
        first.close()
        while not (again := stack.enter_context(contextlib.closing(dialled(server))).recv(1000)).startswith(
            b"HTTP/1.1 2"
        ):
            assert again.startswith(b"HTTP/1.1 429 ")
