"""Limits what clients may do to Socket.IO, whose libraries trust their clients.

The libraries log a traceback for bytes that they cannot parse. They queue any amount of text for a client, handle all
its events at once, and keep the attachments of binary events that never end. They open any number of sockets for a
user, keep those that never say anything, and know a polling client by its session id alone. `guard` adds the limits
of docs/protocol.md; webapp/server/websocket.py lets only an `is_client_packet` pass.
"""

import contextlib
import json
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import gevent
from flask import Flask, Request
from gevent.pool import Pool
from gevent.queue import Empty, JoinableQueue

from webapp.server.inbox import BUSY, Inbox
from webapp.server.memory import HeapTrim
from webapp.server.socket_io import SocketIO

log = logging.getLogger("chatserver.web")

MAX_EVENTS = 8  # of one socket, served at once; the next is not read until one of them is answered
MAX_SESSIONS = 10_000  # of Engine.IO, in one process
MAX_PACKETS = 16  # in one polling payload: Engine.IO's own limit
ROOM_BYTES = 65_536  # waiting for one socket; then the relay waits too
MAX_QUEUED_BYTES = 2 * 1_048_576  # waiting for one socket: room, one slice of the relay, and replies
PACKET_BYTES = 512  # what a packet in a queue costs beside its text
RETRY_S = 30  # after which a socket too many may be tried again
JOIN_S = 10.0  # from the handshake to the namespace `/`
MAX_STRANGERS = 100  # sockets without a cookie: all are told `forbidden`
MAX_OPENING_BYTES = 16_384  # of headers of a handshake: they are kept as long as the session
SMALL_EVENT_CHARS = 16_384  # a larger event of a socket is served alone
HEAD_CHARS = 32  # of an event that is not read: they say who asked
SEPARATOR = "\x1e"

StartResponse = Callable[[str, list[tuple[str, str]]], object]

# Engine.IO: close, ping of an upgrade, pong, upgrade, no-op. Socket.IO: connect, disconnect, events of namespace `/`;
# no binary events, no acknowledgements: we send no event that asks for one.
_CLIENT_PACKET = re.compile(r"1|2probe|3|5|6|40.*|41|42[0-9]{0,15}\[.*", re.DOTALL)
_ACKNOWLEDGED_EVENT = re.compile(r"42([0-9]{1,15})\[")


def is_client_packet(packet: str | bytes) -> bool:
    """Whether a client of ours may send this; its JSON is not judged."""
    return isinstance(packet, str) and _CLIENT_PACKET.fullmatch(packet) is not None


def refusal(head: str, error: dict[str, Any]) -> str:
    """The acknowledgement of an event that is not read, of which this is the beginning; empty if none is asked for."""
    event = _ACKNOWLEDGED_EVENT.match(head)
    return f"43{event[1]}{json.dumps([{'ok': False, 'error': error}])}" if event else ""


class Outbox:
    """All that waits to be sent in one process. Past `max_bytes` it gives up the socket that takes nothing for longest.

    One that is given up is closed; its client connects again and goes on from its cursors.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._waiting: set[SendQueue] = set()

    def account(self, queue: "SendQueue", num_bytes: int) -> None:
        """A queue holds so many bytes more, or less."""
        self._held_bytes += num_bytes
        if queue.held_bytes:
            self._waiting.add(queue)
        else:
            self._waiting.discard(queue)
        while self._held_bytes > self._max_bytes and self._waiting:
            slowest = min(self._waiting, key=lambda waiting: waiting.moved_at)
            log.info(
                "%d bytes wait to be sent; gave up a socket that took none of %d", self._held_bytes, slowest.held_bytes
            )
            slowest.abandon()


class SendQueue(JoinableQueue):  # type: ignore[misc]  # gevent is not typed
    """What waits for one client: queued here, or taken by its sender, which takes all at once and writes one by one.

    While it holds `ROOM_BYTES` the relay adds nothing to it (`has_room`, `drained`). Past `MAX_QUEUED_BYTES`, which
    only replies to the client's own packets can reach, the socket is given up.
    """

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self.give_up: Callable[[], object] = lambda: None
        self.drained: Callable[[], object] = lambda: None
        self.held_bytes = 0
        self.moved_at = time.monotonic()  # when the client last took something, or nothing waited
        self._outbox = outbox
        self._taken_bytes = 0  # of those held, by the sender
        self._given_up = False

    @property
    def has_room(self) -> bool:
        return self.held_bytes < ROOM_BYTES

    def put(self, packet: Any, *args: Any, **kwargs: Any) -> None:
        """Queue without blocking. It always takes None, which ends the sender."""
        if packet is not None:
            if self._given_up:
                return
            if not self.held_bytes:
                self.moved_at = time.monotonic()
            self._hold(_bytes(packet))
            if self.held_bytes > MAX_QUEUED_BYTES:
                self.abandon()
            if self._given_up:
                return
        super().put(packet, *args, **kwargs)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """A sender that may block has sent all that it took before."""
        if block:
            self._sent()
        packet = super().get(block, timeout)
        if packet is not None:
            self._taken_bytes += _bytes(packet)
        return packet

    def abandon(self) -> None:
        """Close the socket; what waits for it is dropped."""
        if not self._given_up:
            self.release()
            self.give_up()

    def release(self) -> None:
        """Nothing of this queue will be sent any more."""
        self._given_up = True
        self._taken_bytes = 0
        with contextlib.suppress(Empty):
            while True:
                super().get(block=False)
                self.task_done()
        self._hold(-self.held_bytes)

    def _sent(self) -> None:
        had_room = self.has_room
        self.moved_at = time.monotonic()
        taken, self._taken_bytes = self._taken_bytes, 0
        if taken:
            self._hold(-taken)
        if not had_room and self.has_room:
            self.drained()

    def _hold(self, num_bytes: int) -> None:
        self.held_bytes += num_bytes
        self._outbox.account(self, num_bytes)


def _bytes(packet: Any) -> int:
    """What a packet costs: itself, its text, and the same text once more when it is encoded."""
    return PACKET_BYTES + 2 * sys.getsizeof(packet.data)


def guard(
    app: Flask,
    socketio: SocketIO,
    *,
    inbox: Inbox,
    max_unsent_bytes: int,
    max_user_sockets: int,
    max_address_sockets: int,
    address_of: Callable[[Request], str],
    drained: Callable[[str], object],
) -> None:
    """Add the limits to a Socket.IO server: on its sends, its messages and its HTTP requests.

    `address_of` says from which internet address a request comes, if from one. `drained` is called with the id of an
    Engine.IO session that had no room and has some now.
    """
    engine = socketio.server.eio
    engine._async = {**engine._async, "queue": partial(SendQueue, Outbox(max_unsent_bytes))}
    engine._log_error_once = _refused
    joined = partial(socketio.server.manager.sid_from_eio_sid, namespace="/")
    limits = _SocketLimits(max_user_sockets, max_address_sockets)
    sessions = _Sessions(engine, inbox, limits, _Origin.reader(app, address_of), joined, drained)
    for event in ("connect", "message", "disconnect"):
        engine.on(event, partial(getattr(sessions, event), engine.handlers[event]))
    app.wsgi_app = _Gate(app.wsgi_app, sessions)  # type: ignore[method-assign]


def _refused(_: str, reason: str) -> None:
    """Takes the place of the library's line, which is an error's and quotes the client."""
    log.info("refused a request to Socket.IO: %s", reason)


class _Origin(NamedTuple):
    """Who opens a session: the user in its cookie (empty without a valid one) and its internet address (or empty)."""

    user: str
    address: str

    @classmethod
    def reader(cls, app: Flask, address_of: Callable[[Request], str]) -> Callable[[dict[str, Any]], "_Origin"]:
        def read(environ: dict[str, Any]) -> _Origin:
            request = app.request_class(environ)
            session = app.session_interface.open_session(app, request)
            with app.app_context():
                return cls(str(session.get("user", "")) if session else "", address_of(request))

        return read


class _SocketLimits:
    """Counts open sockets by user and by address."""

    def __init__(self, max_of_user: int, max_of_address: int) -> None:
        self._max_of_user = max_of_user
        self._max_of_address = max_of_address
        self._of_user: Counter[str] = Counter()
        self._of_address: Counter[str] = Counter()

    def count(self, origin: _Origin, by: int) -> None:
        for counter, key in ((self._of_user, origin.user), (self._of_address, origin.address)):
            counter[key] += by
            if not counter[key]:
                del counter[key]

    def refusal(self, origin: _Origin) -> dict[str, Any] | None:
        """The error of who may open no more sockets. A few without a cookie are let in: to be told so."""
        if not origin.user and self._of_user[""] >= MAX_STRANGERS:
            return _crowd(f"{MAX_STRANGERS} sockets without a session cookie are open", "get one from /api/session")
        if origin.user and self._of_user[origin.user] >= self._max_of_user:
            return _crowd(
                f"you have {self._max_of_user} sockets open, and may have no more", "close some tabs or clients"
            )
        if origin.address and self._of_address[origin.address] >= self._max_of_address:
            return _crowd(f"{self._max_of_address} sockets of your address are open", "close some tabs or clients")
        return None


def _crowd(message: str, remedy: str) -> dict[str, Any]:
    return {"code": "user_limit", "message": message, "remedy": remedy, "retry_after_s": RETRY_S}


class _Sessions:
    """The sessions of Engine.IO: who opened each, and the events that it handles."""

    def __init__(
        self,
        engine: Any,
        inbox: Inbox,
        limits: _SocketLimits,
        origin_of: Callable[[dict[str, Any]], _Origin],
        joined: Callable[[str], object],
        drained: Callable[[str], object],
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._limits = limits
        self._origin_of = origin_of
        self._joined = joined
        self._drained = drained
        self._origins: dict[str, _Origin] = {}
        self._unjoined: dict[str, float] = {}  # since when, the longest first
        self._closes_unjoined = False
        self._heap = HeapTrim()
        self._events: dict[str, Pool] = {}

    def belongs(self, sid: str, environ: dict[str, Any]) -> bool:
        """Whether a request comes from the user that opened the session: an id alone opens nothing."""
        return sid in self._origins and self._origins[sid].user == self._origin_of(environ).user

    def upgrades(self, sid: str) -> bool:
        """Whether a WebSocket has begun to take this session over."""
        session = self._engine.sockets.get(sid)
        return session is not None and (session.upgrading or session.upgraded)

    def crowded(self, environ: dict[str, Any]) -> dict[str, Any] | None:
        return self._limits.refusal(self._origin_of(environ))

    def connect(self, inner: Callable[..., Any], sid: str, environ: dict[str, Any]) -> Any:
        if len(self._origins) >= MAX_SESSIONS:
            return False
        self._origins[sid] = self._origin_of(environ)
        self._limits.count(self._origins[sid], 1)
        self._events[sid] = Pool(MAX_EVENTS)
        session = self._engine.sockets[sid]
        session.queue.drained = partial(self._drained, sid)
        # Polling; a WebSocket puts its own way to end here. In a greenlet, since a close runs handlers.
        session.queue.give_up = partial(gevent.spawn, session.close, wait=False, abort=True)
        self._await_join(sid)
        return inner(sid, environ)

    def message(self, inner: Callable[..., Any], sid: str, data: str) -> None:
        """Runs in the greenlet that reads from the client, so it reads no more while this waits."""
        events = self._events.get(sid)
        if events is None:
            return
        if data.startswith("2"):
            if len(data) > SMALL_EVENT_CHARS:
                events.join()
                self._serve(inner, sid, data)
            else:
                events.spawn(self._serve, inner, sid, data)
        else:
            self._take(inner, sid, data)
            if not self._joined(sid):
                self._await_join(sid)

    def disconnect(self, inner: Callable[..., Any], sid: str, reason: str) -> None:
        origin = self._origins.pop(sid, None)
        if origin is not None:
            self._limits.count(origin, -1)
        session = self._engine.sockets.get(sid)
        # A WebSocket may still send what waits, and releases its queue at its end; a dead client takes nothing.
        if session is not None and (not session.upgraded or reason == self._engine.reason.PING_TIMEOUT):
            session.queue.abandon()
        self._heap.soon()
        self._events.pop(sid, None)
        self._unjoined.pop(sid, None)
        inner(sid, reason)

    def _await_join(self, sid: str) -> None:
        """Close this session unless it is in the namespace `/` soon. One that waits already does not begin anew."""
        self._unjoined.setdefault(sid, time.monotonic())
        if not self._closes_unjoined:
            self._closes_unjoined = True
            gevent.spawn(self._close_unjoined)

    def _close_unjoined(self) -> None:
        """One greenlet for all of them, while there are some."""
        while self._unjoined:
            sid, since = next(iter(self._unjoined.items()))
            if (wait_s := since + JOIN_S - time.monotonic()) > 0:
                gevent.sleep(wait_s)
                continue
            del self._unjoined[sid]
            if not self._joined(sid) and sid in self._engine.sockets:
                log.info("closed a socket that did not join within %g s", JOIN_S)
                self._engine.sockets[sid].queue.give_up()
        self._closes_unjoined = False

    def _serve(self, inner: Callable[..., Any], sid: str, data: str) -> None:
        """Handle an event, or refuse a large one for which the process has no room."""
        with self._inbox.serving(2 * sys.getsizeof(data)) as room:  # itself, and what is parsed out of it
            if room or len(data) <= SMALL_EVENT_CHARS:
                self._take(inner, sid, data)
            elif sid in self._engine.sockets:
                answer = refusal("4" + data[:HEAD_CHARS], BUSY)
                if answer:
                    self._engine.send(sid, answer[1:])
                else:
                    self._engine.sockets[sid].queue.give_up()

    def _take(self, inner: Callable[..., Any], sid: str, data: str) -> None:
        try:
            inner(sid, data)
        except Exception as error:  # noqa: BLE001  # of parsing: our own handlers catch and log theirs
            # Not its words: they may quote the packet.
            log.info("a packet that is not Socket.IO's (%s) ends its socket", type(error).__name__)
            if sid in self._engine.sockets:
                self._engine.sockets[sid].queue.give_up()


class _Gate:
    """WSGI middleware. It refuses requests that Engine.IO cannot handle, and requests of another user."""

    def __init__(self, app: Callable[..., Iterable[bytes]], sessions: _Sessions) -> None:
        self._app = app
        self._sessions = sessions

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/socket.io/"):
            return self._app(environ, start_response)
        if wrong := self._wrong(environ):
            return _refuse(start_response, "400 Bad Request", {"code": "bad_request", "message": wrong})
        opens = "sid" not in parse_qs(environ.get("QUERY_STRING", ""))
        if opens and (crowd := self._sessions.crowded(environ)):
            return _refuse(start_response, "429 Too Many Requests", crowd, ("Retry-After", str(RETRY_S)))
        return self._app(environ, start_response)

    def _wrong(self, environ: dict[str, Any]) -> str:
        """What is wrong with a request to Engine.IO, or nothing."""
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if "j" in query:
            return "this server does not speak JSONP, which lets any page read a user's data"
        if "sid" in query and not self._sessions.belongs(query["sid"][0], environ):
            return "unknown session"
        if "sid" not in query and _header_bytes(environ) > MAX_OPENING_BYTES:
            return f"the headers of a handshake may have {MAX_OPENING_BYTES} bytes"
        if _upgrades(environ):
            if "sid" in query and self._sessions.upgrades(query["sid"][0]):
                return "another WebSocket has taken this session"
            return "" if environ.get("wsgi.input_terminated") is False else "this upgrade cannot be read"
        if query.get("transport") == ["websocket"]:
            return "the WebSocket transport begins with an upgrade"
        return _wrong_payload(environ) if environ["REQUEST_METHOD"] == "POST" else ""


def _refuse(
    start_response: StartResponse, status: str, error: dict[str, Any], *headers: tuple[str, str]
) -> Iterable[bytes]:
    body = json.dumps({"error": error}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
    return [body]


def _header_bytes(environ: dict[str, Any]) -> int:
    return sum(len(value) for name, value in environ.items() if name.startswith("HTTP_"))


def _upgrades(environ: dict[str, Any]) -> bool:
    tokens = [token.strip() for token in environ.get("HTTP_CONNECTION", "").lower().split(",")]
    return "upgrade" in tokens and environ.get("HTTP_UPGRADE", "").lower() == "websocket"


def _wrong_payload(environ: dict[str, Any]) -> str:
    """What is wrong with the packets of a polling request, or nothing; the body can be read again."""
    body = environ["wsgi.input"]
    try:
        packets = body.read().decode().split(SEPARATOR)
    except UnicodeDecodeError:
        return "a payload must be UTF-8"
    body.seek(0)
    if len(packets) > MAX_PACKETS:
        return f"{len(packets)} packets in one payload; the limit is {MAX_PACKETS}"
    return "" if all(map(is_client_packet, packets)) else "a packet that no client of Socket.IO sends"
