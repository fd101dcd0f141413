"""TCP ports of this machine, before a program listens on one. Used by `chatserver up` and by the doctor."""

import socket

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def refusal(host: str, port: int) -> OSError | None:
    """Why no program could listen there now; None if one could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def near(host: str) -> str:
    """Where this machine reaches what listens on `host`, which may stand for all of its addresses."""
    return _ANYWHERE.get(host, host)
