"""Limits what clients may do to Socket.IO, whose libraries trust their clients.

The libraries log a traceback for bytes that they cannot parse. They queue any amount of text for a client, handle all
its events at once, and keep the attachments of binary events that never end. They know a polling client by its session
id alone. `guard` adds the limits of docs/protocol.md; webapp/server/websocket.py lets only an `is_client_packet` pass.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import gevent
from flask import Flask
from flask_socketio import SocketIO
from gevent.pool import Pool
from gevent.queue import JoinableQueue

log = logging.getLogger("chatserver.web")

MAX_EVENTS = 8  # of one socket, served at once; the next is not read until one of them is answered
MAX_SESSIONS = 10_000  # of Engine.IO, in one process
MAX_PACKETS = 16  # in one polling payload: Engine.IO's own limit
PACKET_CHARS = 512  # what a packet in a queue costs beside its text
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


class SendQueue(JoinableQueue):  # type: ignore[misc]  # gevent is not typed
    """The text that waits for one client. Past `max_chars` the socket is closed; the client resumes by its cursors."""

    def __init__(self, max_chars: int) -> None:
        super().__init__()
        self.give_up: Callable[[], object] = lambda: None
        self._max_chars = max_chars
        self._held_chars = 0
        self._given_up = False

    def put(self, packet: Any, *args: Any, **kwargs: Any) -> None:
        """Queue without blocking. It always takes None, which ends the sender."""
        if packet is not None:
            if self._given_up:
                return
            self._held_chars += _chars(packet)
            if self._held_chars > self._max_chars:
                self._given_up = True
                self.give_up()
                return
        super().put(packet, *args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        packet = super().get(*args, **kwargs)
        if packet is not None:
            self._held_chars -= _chars(packet)
        return packet


def _chars(packet: Any) -> int:
    return PACKET_CHARS + (len(packet.data) if isinstance(packet.data, str) else 0)


def guard(app: Flask, socketio: SocketIO, *, max_queued_chars: int) -> None:
    """Add the limits to a Socket.IO server: on its sends, its messages and its HTTP requests."""
    engine = socketio.server.eio
    engine._async = {**engine._async, "queue": partial(SendQueue, max_queued_chars)}
    sessions = _Sessions(engine, partial(_user, app))
    for event in ("connect", "message", "disconnect"):
        engine.on(event, partial(getattr(sessions, event), engine.handlers[event]))
    app.wsgi_app = _Gate(app.wsgi_app, sessions)  # type: ignore[method-assign]


def _user(app: Flask, environ: dict[str, Any]) -> str:
    """The user in the cookie of a request; empty without a valid cookie."""
    session = app.session_interface.open_session(app, app.request_class(environ))
    return str(session.get("user", "")) if session else ""


class _Sessions:
    """The sessions of Engine.IO: the user of each, and the events that it handles."""

    def __init__(self, engine: Any, user_of: Callable[[dict[str, Any]], str]) -> None:
        self._engine = engine
        self._user_of = user_of
        self._users: dict[str, str] = {}
        self._events: dict[str, Pool] = {}

    def belongs(self, sid: str, environ: dict[str, Any]) -> bool:
        """Whether a request comes from the user that opened the session: an id alone opens nothing."""
        return sid in self._users and self._users[sid] == self._user_of(environ)

    def connect(self, inner: Callable[..., Any], sid: str, environ: dict[str, Any]) -> Any:
        if len(self._users) >= MAX_SESSIONS:
            return False
        self._users[sid] = self._user_of(environ)
        self._events[sid] = Pool(MAX_EVENTS)
        session = self._engine.sockets[sid]
        # Polling; a WebSocket puts its own way to end here. In a greenlet, since a close runs handlers.
        session.queue.give_up = partial(gevent.spawn, session.close, wait=False, abort=True)
        return inner(sid, environ)

    def message(self, inner: Callable[..., Any], sid: str, data: str) -> None:
        """Runs in the greenlet that reads from the client, so it reads no more while this waits."""
        events = self._events.get(sid)
        if events is None:
            return
        if data.startswith("2"):
            events.spawn(self._take, inner, sid, data)
        else:
            self._take(inner, sid, data)

    def disconnect(self, inner: Callable[..., Any], sid: str, reason: str) -> None:
        self._users.pop(sid, None)
        self._events.pop(sid, None)
        inner(sid, reason)

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
        wrong = self._wrong(environ) if environ["PATH_INFO"].startswith("/socket.io/") else ""
        if not wrong:
            return self._app(environ, start_response)
        body = json.dumps({"error": {"code": "bad_request", "message": wrong}}).encode()
        start_response("400 Bad Request", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _wrong(self, environ: dict[str, Any]) -> str:
        """What is wrong with a request to Engine.IO, or nothing."""
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if "j" in query:
            return "this server does not speak JSONP, which lets any page read a user's data"
        if "sid" in query and not self._sessions.belongs(query["sid"][0], environ):
            return "unknown session"
        if _upgrades(environ):
            return "" if environ.get("wsgi.input_terminated") is False else "this upgrade cannot be read"
        if query.get("transport") == ["websocket"]:
            return "the WebSocket transport begins with an upgrade"
        return _wrong_payload(environ) if environ["REQUEST_METHOD"] == "POST" else ""


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
