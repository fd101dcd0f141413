"""Checks a TCP port of this machine before a program listens on it. `chatserver up` and the doctor use it."""

import socket

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def refusal(host: str, port: int) -> OSError | None:
    """Why no program can listen on this port now; None if one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def near(host: str) -> str:
    """The address at which this machine reaches a program that listens on `host`, which may mean all addresses."""
    return _ANYWHERE.get(host, host)
