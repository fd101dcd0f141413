"""The port of the web app, with real listeners: ours, strangers, silent ones."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.connection.embedded import free_port
from services.doctor import web
from services.doctor.findings import Check, run
from tests.services.doctor.told import only


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """The port of an HTTP server that says this to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_free_port_is_a_note_and_one_of_another_machine_is_wrong() -> None:
    port = free_port()
    assert only(web.check_port("127.0.0.1", port)) == ("note", f"no web app on 127.0.0.1:{port}; the port is free")
    level, message = only(web.check_port("192.0.2.1", port))
    assert level == "wrong" and "cannot be used" in message
    assert only(web.check_port("127.0.0.1", 0))[0] == "note"


@pytest.mark.parametrize("body", [b"<h1>It works!</h1>", b"[]", b'{"ok": 1}', b'{"error": "no"}'])
def test_a_stranger_on_the_port_is_wrong(body: bytes) -> None:
    with answering(200, body) as port:
        level, message = only(web.check_port("0.0.0.0", port))
    assert level == "wrong" and f"another program than the web app uses port {port}" in message


def test_our_web_app_is_known_by_its_answers() -> None:
    with answering(200, b'{"ok":true}') as port:
        assert only(web.check_port("127.0.0.1", port))[0] == "ok"
    with answering(503, b'{"error":{"code":"unavailable","message":"Redis does not answer"}}') as port:
        level, message = only(web.check_port("127.0.0.1", port))
    assert level == "wrong" and message.endswith("is not ready: Redis does not answer")


def test_a_port_that_speaks_no_http_is_a_stranger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ConnectionError):  # who leaves without reading resets it
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    connection.recv(1000)

        thread = threading.Thread(target=greet)
        thread.start()
        listener_port = listener.getsockname()[1]
        level, message = only(web.check_port("127.0.0.1", listener_port))
        thread.join(10)
    assert level == "wrong" and f"another program than the web app uses port {listener_port} (BadStatusLine)" in message


def test_a_port_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ANSWER_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        level, message = only(web.check_port("127.0.0.1", silent.getsockname()[1]))
    assert level == "wrong" and "did not answer within 0.3 s" in message


def test_a_port_that_never_ends_its_answer_is_given_up_by_the_bound_of_the_check() -> None:
    """Each byte comes in time, so no timeout of a socket ever ends it."""
    leave = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connections = [listener.accept()[0] for _ in range(2)]
            while not leave.wait(0.02):
                with_last = connections[-1]
                try:
                    with_last.sendall(b"H")
                except OSError:
                    break
            for connection in connections:
                connection.close()

        thread = threading.Thread(target=drip)
        thread.start()
        port = listener.getsockname()[1]
        found = run([Check("web app", lambda: web.check_port("127.0.0.1", port), limit_s=0.5)])
        leave.set()
        thread.join(10)
    assert [(each.level, each.message) for each in found] == [("wrong", "the check did not end within 0.5 s")]


def test_a_page_that_was_not_built_is_wrong(tmp_path: Path) -> None:
    assert only(web.check_page(tmp_path))[0] == "wrong"
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "app.js").touch()
    assert only(web.check_page(tmp_path))[0] == "ok"
    assert only(web.check_page(None))[0] == "note"
    found = web.webapp_folder()
    assert found is not None and found.name == "webapp"
