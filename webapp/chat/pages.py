"""The chat page, its session cookie and the small HTTP API beside the sockets."""

import secrets
from collections.abc import Callable

from flask import Blueprint, Response, jsonify, render_template, request, session
from redis import Redis

from services.connection.connect import translated
from services.connection.memory import FULL_PERCENT, full_memory, memory_percent
from services.connection.redis_disk import RedisDisk
from services.errors import ConfigurationError, Unavailable
from services.places import PAGE_SCRIPT
from services.serving.overview import offered_rows
from services.wire.keys import Keys
from services.wire.parsing import MAX_MESSAGES
from webapp.access import visitors
from webapp.access.address import address_of
from webapp.access.newcomers import Newcomers

# The page runs only what came with it; what a model writes is rendered by code of ours and can load nothing.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def make_blueprint(
    redis: Redis,
    keys: Keys,
    newcomers: Newcomers,
    disk: RedisDisk,
    check_database: Callable[[], object],
    *,
    max_message_chars: int,
    max_message_bytes: int,
) -> Blueprint:
    """Routes `/`, `/api/session`, `/api/models`, `/healthz`, and `/readyz`, which vLLM calls `/health`."""
    pages = Blueprint("pages", __name__)

    @pages.get("/")
    def chat() -> str:
        _user(newcomers)
        if not PAGE_SCRIPT.exists():
            raise ConfigurationError("the page is not built; run `make page` in the project's folder")
        return render_template(
            "index.html",
            shows_jobs=visitors.is_admin(),
            max_message_chars=max_message_chars,
            max_message_bytes=max_message_bytes,
            max_messages=MAX_MESSAGES,
        )

    @pages.get("/api/session")
    def api_session() -> Response:
        return jsonify(user=_user(newcomers))

    @pages.get("/api/models")
    def api_models() -> Response:
        with translated():
            return jsonify(models=offered_rows(redis, keys))

    @pages.get("/healthz")
    @visitors.open_to_all
    def healthz() -> Response:
        return jsonify(ok=True)

    @pages.get("/health")
    @pages.get("/readyz")
    @visitors.open_to_all
    def readyz() -> Response:
        disk.check()
        check_database()
        with translated():
            percent = memory_percent(redis)
        if percent >= FULL_PERCENT:
            full = full_memory(percent)
            raise Unavailable(full.message, retry_after_s=full.retry_after_s)
        return jsonify(ok=True)

    @pages.after_app_request
    def harden(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        return response

    return pages


def _user(newcomers: Newcomers) -> str:
    """The user who has signed in; without accounts the anonymous user of this browser, whom the first visit makes."""
    if visitors.accounts() is not None:
        return visitors.current_user()
    if "user" not in session:
        newcomers.admit(address_of(request))
        session["user"] = f"anon-{secrets.token_hex(12)}"
        session.permanent = True
    return str(session["user"])
