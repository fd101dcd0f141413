"""The WebSocket under Engine.IO, over gevent: what `socketio.server` uses instead of simple-websocket.

simple-websocket sends with `socket.send`, which under gevent may write half a frame to a slow client and drop the
rest; and it spends a greenlet, a second descriptor and a handshake parser on each client. Here the greenlet of the
HTTP request reads, frames are written whole, and wsproto parses what clients send.
"""

import base64
import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.lock import RLock
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from webapp.server.inbox import BUSY, Inbox
from webapp.server.transport import HEAD_CHARS, StartResponse, is_client_packet, refusal
from webapp.server.turns import Turns

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_FINAL_TEXT, _FINAL_BINARY = 0x81, 0x82
_READ_BYTES = 4096
_GOODBYE_S = 1.0
_NO_OP = "6"  # of Engine.IO
PART_BYTES = 64  # what a part of a message costs at least, an empty one too
_READABLE = 16  # times the limit: so much of a message is read, to tell its sender that it is too large
MESSAGE_S = 120.0  # from the first byte of a message to its last


class WebSocket:
    """A WSGI application for one upgraded connection: does the handshake, then runs Engine.IO's `handler(self)`.

    `too_large(bytes, most)` is the error that answers a message of which no more is read.
    `wait`, `send` and `close` are what the handler calls, from two greenlets. It is a method of Engine.IO's session.
    """

    def __init__(
        self,
        handler: Callable[["WebSocket"], Iterable[bytes]],
        server: Any,
        *,
        inbox: Inbox,
        too_large: Callable[[int, int], dict[str, Any]],
    ) -> None:
        self._handler = handler
        self._too_large = too_large
        self._intake = inbox.intake(self._forget_for_others)
        self._session: Any = handler.__self__  # type: ignore[attr-defined]
        self._max_bytes: int = server.max_http_buffer_size
        self._frames = Connection(ConnectionType.SERVER)
        self._writing = RLock()
        self._turns = Turns()
        # A message whose last frame has not come. Its text stays in UTF-8: one character may make a `str` four times as
        # large.
        self._parts = bytearray()
        self._num_bytes = 0  # that have come of it
        self._begun_at = 0.0
        self._refused: Callable[[], dict[str, Any]] | None = None  # the error with which to answer it once it has come
        self._goodbye = CloseReason.MESSAGE_TOO_BIG  # if it cannot be answered
        self._messages: list[str | bytes] = []

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13" or not key:
            start_response("400 Bad Request", [("Sec-WebSocket-Version", "13")])
            return [b"this is a WebSocket of version 13 (RFC 6455)"]
        self._input = environ["wsgi.input"]  # of an upgraded connection, gevent gives the buffered socket itself
        self._sock: Any = self._input.raw._sock  # Engine.IO sets its timeout by this name
        # Without it a token waits for the client's acknowledgement of the one before: up to 40 ms.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._session.queue.give_up = self.abort
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
        self._sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
        )
        try:
            return self._handler(self)
        finally:
            self.abort()  # so that nobody reads another HTTP request from it
            self._intake.release()
            self._parts = bytearray()  # this object is in a cycle, which may stay for long
            if self._session.upgraded:
                self._session.queue.release()

    def wait(self) -> str | bytes | None:
        """The next message; None when the connection has ended, or a no-op if that ends an upgrade from polling.

        Engine.IO parses what an upgrade begins with before it looks whether there is anything.
        """
        self._turns.end()
        while not self._messages:
            try:
                data = self._input.read1(_READ_BYTES)
            except OSError:  # a timeout included: Engine.IO's pings would have made the client answer
                data = b""
            if not data or not self._take(data):
                return None if self._session.upgraded else _NO_OP
        self._intake.release()  # whoever serves this message counts it
        self._intake.hold(len(self._parts))
        return self._messages.pop(0)

    def send(self, data: str | bytes) -> None:
        """Write one message whole. Raises OSError when the connection has ended."""
        kind, payload = (_FINAL_TEXT, data.encode()) if isinstance(data, str) else (_FINAL_BINARY, data)
        size = len(payload)
        if size < 126:
            head = bytes((kind, size))
        elif size < 65_536:
            head = struct.pack(">BBH", kind, 126, size)
        else:
            head = struct.pack(">BBQ", kind, 127, size)
        with self._writing:
            if self._frames.state is not ConnectionState.OPEN:
                raise OSError("the WebSocket is closed")
            self._sock.sendall(head + payload)

    def close(self, reason: CloseReason = CloseReason.NORMAL_CLOSURE) -> None:
        """Say goodbye; whoever waits sees the end."""
        with contextlib.suppress(OSError):
            if self._frames.state is ConnectionState.OPEN:
                self._sock.settimeout(_GOODBYE_S)
                self._reply(CloseConnection(reason))
        self.abort()

    def abort(self) -> None:
        """End the connection without a word; never blocks."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _take(self, data: bytes) -> bool:
        """Digest what has arrived; False when it ends the connection."""
        try:
            self._frames.receive_data(data)
            for event in self._frames.events():
                self._turns.end()
                if isinstance(event, (TextMessage, BytesMessage)):
                    if not self._join(event):
                        self.close(self._goodbye)
                        return False
                elif isinstance(event, Ping):
                    self._reply(event.response())
                elif isinstance(event, CloseConnection):
                    if self._frames.state is ConnectionState.REMOTE_CLOSING:
                        self._reply(event.response())
                    return False
        except (RemoteProtocolError, LocalProtocolError):
            self.close(CloseReason.PROTOCOL_ERROR)
            return False
        except OSError:
            return False
        return True

    def _join(self, event: Message[Any]) -> bool:
        """Take a part of a message; False if it is too large or too slow, and nobody can be told so."""
        text = isinstance(event, TextMessage)
        part = event.data.encode() if text else event.data
        self._begun_at = self._begun_at or time.monotonic()
        self._num_bytes += max(len(part), PART_BYTES)
        if self._refused is None:
            self._parts += part
            self._intake.hold(len(part))
        if self._refused is None and self._num_bytes > self._max_bytes:
            self._refused = self._too_large_now
            self._keep_head()
        if self._refused and not (text and self._is_answerable()):
            return False
        if event.message_finished:
            self._finish(text)
        elif time.monotonic() - self._begun_at > MESSAGE_S:
            self._goodbye = CloseReason.POLICY_VIOLATION
            return False
        return True

    def _finish(self, text: bool) -> None:
        """All of a message has come: it waits for `wait`, or is answered."""
        data, error = bytes(self._parts), self._refused and self._refused()
        self._parts, self._num_bytes, self._begun_at, self._refused = bytearray(), 0, 0.0, None
        self._intake.finish()
        if error is None:
            self._accept(data.decode() if text else data)
        else:
            self.send(refusal(data.decode(errors="ignore"), error))

    def _too_large_now(self) -> dict[str, Any]:
        return self._too_large(self._num_bytes, self._max_bytes)

    def _keep_head(self) -> None:
        """Forget all of a message but who asked."""
        self._intake.release()
        self._parts = self._parts[:HEAD_CHARS]

    def _is_answerable(self) -> bool:
        """Whether the event that is refused asks for an acknowledgement, and is not too long to be read."""
        asks = refusal(self._parts.decode(errors="ignore"), {})
        return bool(asks) and self._num_bytes <= _READABLE * self._max_bytes

    def _forget_for_others(self) -> None:
        """The process has no room for this message. Called in any greenlet, so that a goodbye needs one of its own."""
        self._refused, self._goodbye = lambda: BUSY, CloseReason.TRY_AGAIN_LATER
        self._keep_head()
        if not self._is_answerable():
            gevent.spawn(self.close, self._goodbye)

    def _accept(self, message: str | bytes) -> None:
        if not is_client_packet(message):
            raise RemoteProtocolError("a message that no client of Socket.IO sends")
        self._messages.append(message)

    def _reply(self, event: Any) -> None:
        with self._writing:
            self._sock.sendall(self._frames.send(event))
