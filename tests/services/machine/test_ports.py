"""Whether a program could listen on a port."""

import errno
import socket

import pytest

from services.machine.ports import near, refusal


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_port_on_which_somebody_listens_is_refused_and_free_afterwards(
    host: str, family: socket.AddressFamily
) -> None:
    with socket.socket(family) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        server.listen()
        port = server.getsockname()[1]
        refused = refusal(host, port)
        assert refused is not None and refused.errno == errno.EADDRINUSE
    assert refusal(host, port) is None


def test_an_address_of_another_machine_is_refused() -> None:
    refused = refusal("192.0.2.1", 8000)
    assert refused is not None and refused.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize(
    ("host", "expected"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("", "127.0.0.1"), ("10.0.0.7", "10.0.0.7")]
)
def test_what_listens_everywhere_is_reached_on_the_loopback(host: str, expected: str) -> None:
    assert near(host) == expected
