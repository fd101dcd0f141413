"""The web app's port, from here: ours, a stranger's, free or not to be had. And whether its page was built."""

import contextlib
import errno
import http.client
import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from services.doctor.findings import Finding, note, ok, wrong
from services.machine.ports import near, refusal

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 6.0  # /readyz waits for Redis, five seconds at most
MOST_BYTES = 65_536
ELSEWHERE = (
    "start the web app there; if it shall run here, set CHATSERVER_HOST to an address of this machine or 0.0.0.0"
)
TAKEN = "end what listens there, or set CHATSERVER_PORT to another port"


def check_port(host: str, port: int) -> Iterator[Finding]:
    """Who answers on the web app's address."""
    if port == 0:
        yield note("CHATSERVER_PORT is 0: the web app takes a free port, which is not known here")
        return
    here = near(host)
    try:
        with socket.create_connection((here, port), timeout=CONNECT_TIMEOUT_S):
            pass
    except OSError:
        yield from _free(host, port)
    else:
        yield from _listening(here, port)


def _free(host: str, port: int) -> Iterator[Finding]:
    """Nobody listens; could we?"""
    error = refusal(host, port)
    if error is None:
        yield note(f"no web app on {host}:{port}; the port is free")
    else:
        yield wrong(f"nothing answers on {host}:{port}, and it cannot be used: {error.strerror}", _cannot(error))


def _cannot(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return ELSEWHERE
    if error.errno == errno.EACCES:
        return "ports below 1024 are for root: set CHATSERVER_PORT to one above, and a proxy before it"
    if error.errno == errno.EADDRNOTAVAIL:
        return ELSEWHERE
    return TAKEN


def _listening(host: str, port: int) -> Iterator[Finding]:
    try:
        status, body = _ready(host, port)
    except TimeoutError:
        yield wrong(f"what listens on {host}:{port} does not answer within {ANSWER_TIMEOUT_S:g} s", TAKEN)
    except (OSError, http.client.HTTPException) as error:
        yield wrong(_stranger(port, type(error).__name__), TAKEN)
    else:
        told = _told(body)
        if status == 200 and told.get("ok") is True:
            yield ok(f"the web app on {host}:{port} is ready")
        elif isinstance(told.get("error"), dict) and "code" in told["error"]:
            yield wrong(f"the web app on {host}:{port} is not ready: {told['error'].get('message')}", "see Redis above")
        else:
            yield wrong(_stranger(port, f"its /readyz answers {status}"), TAKEN)


def _stranger(port: int, why: str) -> str:
    return f"port {port} is taken by something that is not our web app ({why})"


def _ready(host: str, port: int) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=ANSWER_TIMEOUT_S)) as connection:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_BYTES)


def _told(body: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def check_page(folder: Path | None) -> Iterator[Finding]:
    """`folder`: of the package `webapp`; None where it is not installed."""
    if folder is None:
        yield note("webapp is not installed here: no web app can run")
    elif not (folder / "static" / "app.js").is_file():
        yield wrong(f"the page is not built: {folder / 'static' / 'app.js'} is missing", "`make page` in the checkout")
    else:
        yield ok(f"built, in {folder / 'static'}")


def webapp_folder() -> Path | None:
    """Found without importing it."""
    spec = importlib.util.find_spec("webapp")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) if folders else None
