"""Checks the web app's port on this machine: who listens there, or could it? Checks that the page was built."""

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
ELSEWHERE = "start the web app there; to run it here, set CHATSERVER_HOST to an address of this machine or 0.0.0.0"
TAKEN = "end the program that listens there, or set CHATSERVER_PORT to another port"


def check_port(host: str, port: int) -> Iterator[Finding]:
    """Which program answers at the web app's address."""
    if port == 0:
        yield note("CHATSERVER_PORT is 0: the web app takes a free port that the doctor does not know")
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
    """No program listens; whether the web app could."""
    error = refusal(host, port)
    if error is None:
        yield note(f"no web app on {host}:{port}; the port is free")
    else:
        yield wrong(
            f"no program answers on {host}:{port}, and the port cannot be used: {error.strerror}", _cannot(error)
        )


def _cannot(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return ELSEWHERE
    if error.errno == errno.EACCES:
        return "only root may use ports below 1024: set CHATSERVER_PORT to one above, and a proxy before it"
    if error.errno == errno.EADDRNOTAVAIL:
        return ELSEWHERE
    return TAKEN


def _listening(host: str, port: int) -> Iterator[Finding]:
    try:
        status, body = _ready(host, port)
    except TimeoutError:
        yield wrong(f"the program on {host}:{port} did not answer within {ANSWER_TIMEOUT_S:g} s", TAKEN)
    except (OSError, http.client.HTTPException) as error:
        yield wrong(_stranger(port, type(error).__name__), TAKEN)
    else:
        told = _told(body)
        if status == 200 and told.get("ok") is True:
            yield ok(f"the web app on {host}:{port} is ready")
        elif isinstance(told.get("error"), dict) and "code" in told["error"]:
            yield wrong(
                f"the web app on {host}:{port} is not ready: {told['error'].get('message')}",
                "see the findings about Redis above",
            )
        else:
            yield wrong(_stranger(port, f"its /readyz answers {status}"), TAKEN)


def _stranger(port: int, why: str) -> str:
    return f"another program than the web app uses port {port} ({why})"


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
    """`folder` is that of the package `webapp`; None where it is not installed."""
    if folder is None:
        yield note("webapp is not installed: this machine can run no web app")
    elif not (folder / "static" / "app.js").is_file():
        yield wrong(f"the page is not built: {folder / 'static' / 'app.js'} is missing", "`make page` in the checkout")
    else:
        yield ok(f"built, in {folder / 'static'}")


def webapp_folder() -> Path | None:
    """The folder of the package `webapp`. It is found without an import."""
    spec = importlib.util.find_spec("webapp")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) if folders else None
