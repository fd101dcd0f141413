"""Whose requests share a limit: internet addresses, told by the connection or by our own proxy."""

from collections.abc import Callable

import pytest
from flask import Flask, Request, request

from webapp.access.address import address_of, any_address_of


def seen(peer: str, forwarded: str = "", published_on: str = "", *, by: Callable[[Request], str] = address_of) -> str:
    app = Flask(__name__)
    app.config["PUBLISHED_ON"] = published_on
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    with app.test_request_context(environ_base={"REMOTE_ADDR": peer}, headers=headers):
        return by(request)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("8.8.4.4", "8.8.4.4"),
        ("::ffff:8.8.4.4", "8.8.4.4"),
        ("2a00:1450:4001:81b::200e", "2a00:1450:4001:800::"),
        ("2a00:1450:4001:0877:ffff::1", "2a00:1450:4001:800::"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("192.168.1.7", ""),
        ("fd00::7", ""),
        ("", ""),
    ],
)
def test_only_internet_addresses_are_told_apart(peer: str, address: str) -> None:
    assert seen(peer) == address


def test_only_the_proxy_of_the_deployment_is_believed() -> None:
    assert seen("8.8.4.4", "1.1.1.1") == "8.8.4.4"
    assert seen("172.18.0.3", "1.1.1.1", published_on="0.0.0.0") == "1.1.1.1"
    assert seen("172.18.0.3", "6.6.6.6, 1.1.1.1", published_on="0.0.0.0") == "1.1.1.1", "the client wrote the rest"
    assert seen("172.18.0.3", "nonsense", published_on="0.0.0.0") == ""


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("8.8.4.4", "8.8.4.4"),
        ("2a00:1450:4001:81b::200e", "2a00:1450:4001:800::"),
        ("192.168.1.7", "192.168.1.7"),
        ("FD00:0::7", "fd00::7"),
        ("127.0.0.1", "127.0.0.1"),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_attempts_to_sign_in_tell_private_addresses_apart_too(peer: str, address: str) -> None:
    assert seen(peer, by=any_address_of) == address
    behind_proxy = seen("172.18.0.3", f"6.6.6.6, {peer}", published_on="0.0.0.0", by=any_address_of)
    assert behind_proxy == address, "the proxy's own address stands for nobody"
