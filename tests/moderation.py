"""The moderation endpoint of an operator, as tests need it: on loopback, and told what to answer."""

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Endpoint:
    """A moderation that refuses what has the word `bad`, flags `odd`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.reply: Callable[[BaseHTTPRequestHandler], None] | None = None
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append(body)
                (endpoint.reply or endpoint.verdict)(self)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/judge?v=1"

    def verdict(self, handler: BaseHTTPRequestHandler) -> None:
        text = json.dumps(self.asked[-1]["messages"])
        kind = "refuse" if "bad" in text else "flag" if "odd" in text else "pass"
        send(handler, json.dumps({"verdict": kind, "reason": f"it says {kind}"}).encode())

    def __enter__(self) -> "Endpoint":
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    with contextlib.suppress(OSError):
        handler.wfile.write(body)
