"""Makes the web application: everything is built here and passed in, nothing is global."""

import datetime
import logging
import os
import secrets
from pathlib import Path
from typing import Any

import orjson
from flask import Flask
from flask_socketio import SocketIO

from services.connection import connect
from services.protocol import Keys
from services.registry import Registry
from services.requests import Requests
from services.settings import Settings
from webapp import pages, sockets
from webapp.relay import Relay

log = logging.getLogger("chatserver.web")

MAX_MESSAGE_OVERHEAD_BYTES = 65_536


def create_app(settings: Settings, *, async_mode: str = "gevent") -> tuple[Flask, SocketIO, Relay]:
    """The Flask app, its Socket.IO server and its relay (not started). `async_mode` is never guessed."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=settings.secret_key or kept_secret(settings.state_dir),
        SESSION_COOKIE_NAME="chatserver",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=datetime.timedelta(days=365),
        MAX_CONTENT_LENGTH=1_000_000,
    )
    redis = connect(settings.redis_url, role="web")
    requests = Requests.from_settings(redis, settings)
    socketio = SocketIO(
        app,
        async_mode=async_mode,
        # None means same origin only; a list adds to nothing, so ours must be named too when it differs.
        cors_allowed_origins=settings.allowed_origins.split(",") if settings.allowed_origins else None,
        max_http_buffer_size=4 * settings.max_message_chars + MAX_MESSAGE_OVERHEAD_BYTES,
        ping_interval=20,
        ping_timeout=20,
    )

    engine = socketio.server.eio
    if async_mode == "gevent":
        from webapp.websocket import WebSocket

        engine._async = {**engine._async, "websocket": WebSocket}

    def emit(sid: str, event: str, payload: dict[str, Any]) -> None:
        # What `socketio.server.emit(event, payload, to=sid)` sends, without its search for rooms and binary parts: the
        # packet of a Socket.IO event (2) in the default namespace. It halves the cost of a token.
        connection = socketio.server.manager.eio_sid_from_sid(sid, "/")
        if connection is not None:
            engine.send(connection, "2" + orjson.dumps([event, payload]).decode())

    relay = Relay(
        requests,
        redis,
        emit,
        interval_s=settings.relay_interval_s,
        window_chars=settings.window_chars,
        spawn=socketio.start_background_task,
        sleep=socketio.sleep,
    )
    sockets.register(socketio, requests, relay, max_message_chars=settings.max_message_chars)
    app.register_blueprint(pages.make_blueprint(redis, Registry(redis, Keys(settings.namespace))))
    return app, socketio, relay


def kept_secret(state_dir: Path) -> str:
    """The key that signs cookies: made once, readable by us only, the same for every web process of this machine."""
    path = state_dir / "secret_key"
    state_dir.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text("ascii")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        secret = secrets.token_hex(32)
        file.write(secret)
    return secret
