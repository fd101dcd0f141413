"""Whose requests share a limit: internet addresses, told by the connection or by our own proxy."""

import pytest
from flask import Flask, request

from webapp.access.address import address_of


def seen(peer: str, forwarded: str = "", published_on: str = "") -> str:
    app = Flask(__name__)
    app.config["PUBLISHED_ON"] = published_on
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    with app.test_request_context(environ_base={"REMOTE_ADDR": peer}, headers=headers):
        return address_of(request)


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
