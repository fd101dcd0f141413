"""The HTTP server of the web process: gevent's, with limits. `python -m webapp` runs it.

gevent waits for ever for the end of a request and takes any number of connections. This server reads a whole request,
within a time and a size, before the application sees it; else it closes the connection. Only a body of one of the
`streamed_paths` is read by the application itself, which first decides who may send it. The server answers a wrong
request with `{error: {code, message}}` and logs one line without a traceback. `inbox.py` bounds what all requests hold
together.
"""

import contextlib
import errno
import io
import json
import logging
import resource
import socket
import sys
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from gevent import Timeout
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer, headers_factory

from webapp.server.inbox import BUSY, RETRY_S, Inbox
from webapp.server.memory import HeapTrim
from webapp.server.turns import Turns

log = logging.getLogger("chatserver.web")

IDLE_S = 30.0  # until the first line of a request, on a new or a kept connection
REQUEST_S = 30.0  # from there to the end of its body
SEND_S = 60.0  # for one part of an answer to be taken; a WebSocket has Engine.IO's time instead
SEND_BUFFER_BYTES = 131_072  # of the kernel, for one connection; Linux takes twice as much
MAX_HEADER_BYTES = 32_768  # of each connection, as long as its request lasts
READ_BYTES = 4096  # of a body at once; it is counted once it is read
STREAM_READ_BYTES = 65_536  # at most, of a body that the application reads
CHUNKED_READ_BYTES = 1024  # gevent keeps an object for each chunk of one read, of one byte perhaps
MAX_CONNECTIONS = 10_000
# Functions in the WSGI environment.
CLIENT_LEFT = "webapp.client_left"  # whether the client has closed its side
BODY_READ = "webapp.body_read"  # to be called by who answers for long: nothing of the body is needed any more
RESERVED_FILES = 512  # descriptors that are no client's: Redis (64 a node for each of two clients), files, pipes

_ESTABLISHED = 1  # Linux's name for a connection that neither side has closed

_REASONS = {
    400: ("Bad Request", "bad_request"),
    408: ("Request Timeout", "request_timeout"),
    413: ("Content Too Large", "content_too_large"),
    429: ("Too Many Requests", BUSY["code"]),
    431: ("Request Header Fields Too Large", "headers_too_large"),
}


class Refused(ValueError):
    """A request that the application never sees, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Server(WSGIServer):  # type: ignore[misc]  # gevent is not typed
    """Serves `app` on (host, port). It refuses a body over `max_body_bytes`; a connection over the limit waits.

    `internet_address` tells which connections come from one address, of which it takes `max_address_connections`.
    What is posted to one of the `streamed_paths` has no limit here, and ends its connection.
    """

    def __init__(
        self,
        address: tuple[str, int],
        app: Any,
        inbox: Inbox,
        *,
        max_body_bytes: int,
        internet_address: Callable[[str], str],
        max_address_connections: int,
        streamed_paths: Collection[str] = (),
    ) -> None:
        super().__init__(address, app, log=None, handler_class=Handler, spawn=Pool(max_connections()))
        self.inbox = inbox
        self.heap = HeapTrim()
        self.max_body_bytes = max_body_bytes
        self.streamed_paths = streamed_paths
        self._internet_address = internet_address
        self._max_address_connections = max_address_connections
        self._num_connections: Counter[str] = Counter()  # by internet address

    def handle(self, sock: Any, address: tuple[Any, ...]) -> None:
        """Serve one connection, unless its address has too many. Without the bound one address could take them all."""
        peer = self._internet_address(str(address[0]))
        if peer and self._num_connections[peer] >= self._max_address_connections:
            with contextlib.suppress(OSError):
                sock.sendall(_refusal(429, f"{self._max_address_connections} connections of your address are open"))
            return
        self._num_connections[peer] += 1
        try:
            super().handle(sock, address)
        finally:
            self._num_connections[peer] -= 1
            if not self._num_connections[peer]:
                del self._num_connections[peer]


def max_connections() -> int:
    """The number of files that this process may open, after it has raised that limit as far as possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_FILES
    if soft < wanted:
        soft = min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(MAX_CONNECTIONS, soft - RESERVED_FILES))


class Handler(WSGIHandler):  # type: ignore[misc]
    """One connection."""

    # A client that went away or takes nothing is no error of ours ("timed out" is what gevent's timeout carries).
    ignored_socket_errors = (*WSGIHandler.ignored_socket_errors, errno.ENOTCONN, errno.ETIMEDOUT, "timed out")

    def __init__(self, sock: Any, address: Any, server: Server) -> None:
        sock.settimeout(SEND_S)
        # The kernel's buffer grows with a client that reads nothing, and counts as this process's memory.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._turns = Turns()
        super().__init__(sock, address, server, io.BufferedReader(_FairReader(sock, self._turns)))
        self._body = b""
        self._intake = server.inbox.intake(self._stop_reading)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # whoever was refused may be gone before it is told
            super().handle()

    def handle_one_request(self) -> Any:
        self._turns.end()  # further requests may have come with the last one
        try:
            return super().handle_one_request()
        finally:
            self._intake.release()

    def read_requestline(self) -> str:
        with Timeout(IDLE_S, OSError(errno.ETIMEDOUT, "no request came")):
            return str(super().read_requestline())

    def read_request(self, raw_requestline: str) -> bool:
        with Timeout(REQUEST_S, Refused(408, f"the request did not end within {REQUEST_S:g} s")):
            try:
                whole = bool(super().read_request(raw_requestline))
                self._body = self._read_body()
            except Exception:
                self.server.heap.soon()
                if self._intake.given_up:  # then the read that it waited for failed
                    raise Refused(429, BUSY["message"]) from None
                raise
        self._intake.finish()
        return whole

    def MessageClass(self, stream: Any, *_: Any) -> Any:  # noqa: N802  # gevent's name
        headers = headers_factory(_Headers(stream, self._hold))
        self._intake.release()  # the number of connections bounds them from here on
        return headers

    def _forget(self, body: io.BytesIO) -> None:
        """The body was read: it takes no memory any more, and counts no more."""
        body.seek(0)
        body.truncate()
        self._intake.release()

    def _client_left(self) -> bool:
        """Whether the client has closed its side, also if bytes of a next request wait before its end."""
        try:
            if sys.platform == "linux":
                return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED)
            # gevent's own `recv` would wait for bytes.
            return not self.socket._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _stop_reading(self) -> None:
        """Another greenlet gives this request up: whatever reads it now fails. The answer can still be sent."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)

    def _hold(self, data: bytes) -> bytes:
        """Count what was read. Raises Refused if this request had to go, for this read or before it."""
        self._intake.hold(len(data))
        if self._intake.given_up:
            raise Refused(429, BUSY["message"])
        return data

    def _read_body(self) -> bytes:
        """The whole body. Raises Refused, or the error of a read."""
        chunked = self._framing()
        if not chunked and not self.content_length:
            return b""
        if self._connection_upgrade_requested():
            raise Refused(400, "an upgrade has no body")
        if self._is_streamed():
            return b""
        limit = self.server.max_body_bytes
        if self.content_length and self.content_length > limit:
            raise Refused(413, f"a body of {self.content_length} bytes; the limit is {limit}")
        stream = self._input(chunked=chunked)
        body = bytearray()
        while part := stream.read(CHUNKED_READ_BYTES if chunked else READ_BYTES):
            body += self._hold(part)
            if len(body) > limit:
                raise Refused(413, f"a body of more than {limit} bytes")
        return bytes(body)

    def _input(self, *, chunked: bool) -> Any:
        waits = self.headers.get("expect", "").lower() == "100-continue"
        return Input(self.rfile, self.content_length, self.socket if waits else None, chunked)

    def _is_streamed(self) -> bool:
        return self.command == "POST" and self.path.partition("?")[0] in self.server.streamed_paths

    def _framing(self) -> bool:
        """Whether the body is chunked. Refuses headers that two servers may read differently: they smuggle requests."""
        codings = [value.strip().lower() for value in self.headers.get_all("transfer-encoding", [])]
        lengths = {value.strip() for value in self.headers.get_all("content-length", [])}
        if codings and codings != ["chunked"]:
            raise Refused(400, "Transfer-Encoding must be chunked or absent")
        if len(lengths) > 1 or not all(value.isascii() and value.isdigit() for value in lengths):
            raise Refused(400, "Content-Length must be one number")
        return bool(codings)

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        if self._is_streamed():
            chunked = "HTTP_TRANSFER_ENCODING" in environ
            environ["wsgi.input"], environ[CLIENT_LEFT] = _LiveBody(self._input(chunked=chunked)), self._client_left
            environ["wsgi.input_terminated"] = chunked
            self.close_connection = True  # a rest of it may be unread
        elif not self._connection_upgrade_requested():
            environ["wsgi.input"] = body = io.BytesIO(self._body)
            environ["CONTENT_LENGTH"] = str(len(self._body))
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            environ[CLIENT_LEFT], environ[BODY_READ] = self._client_left, partial(self._forget, body)
        self.wsgi_input = Input(io.BytesIO(), 0)  # of which nothing is left to be discarded
        self._body = b""
        return environ

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        status = error.status if isinstance(error, Refused) else 400
        message = str(error) if isinstance(error, Refused) else "this is not a request of HTTP/1.1"
        # Not the library's words: where a length was wrong, they quote the rest of somebody's message.
        why = message if isinstance(error, Refused) else type(error).__name__
        log.info("refused a request of %s: %s", self.client_address, why)
        return str(status), _refusal(status, message)


def _refusal(status: int, message: str) -> bytes:
    """The whole answer to a request that the application never sees."""
    reason, code = _REASONS[status]
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    if status == 429:
        head += f"Retry-After: {RETRY_S}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _FairReader(socket.SocketIO):
    """What comes from a client, with a turn of all others before each read."""

    def __init__(self, sock: Any, turns: Turns) -> None:
        super().__init__(sock, "r")
        self._turns = turns

    def readinto(self, b: Any) -> int | None:
        self._turns.end()
        return super().readinto(b)


class _LiveBody:
    """A body that the application reads as it comes. It ends early when nothing comes for long."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = STREAM_READ_BYTES) -> bytes:
        try:
            with Timeout(IDLE_S, OSError(errno.ETIMEDOUT, "the body does not go on")):
                return bytes(self._stream.read(min(size, STREAM_READ_BYTES) if size > 0 else STREAM_READ_BYTES))
        except OSError as error:
            log.info("a body ended early: %s", error)
            return b""


class _Headers:
    """The header lines of one request, up to their size limit, as a file for `http.client`; `hold` counts each."""

    def __init__(self, stream: Any, hold: Callable[[bytes], bytes]) -> None:
        self._stream = stream
        self._hold = hold
        self._left_bytes = MAX_HEADER_BYTES

    def readline(self, limit: int) -> bytes:
        line = bytes(self._stream.readline(min(limit, self._left_bytes + 1)))
        self._left_bytes -= len(line)
        if self._left_bytes < 0:
            raise Refused(431, f"headers of more than {MAX_HEADER_BYTES} bytes")
        return self._hold(line)
