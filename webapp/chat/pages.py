"""The chat page, its session cookie and the small HTTP API beside the sockets."""

import math
import secrets
from typing import Any

from flask import Blueprint, Response, json, jsonify, render_template, request, session
from redis import Redis
from werkzeug.exceptions import HTTPException

from services.connection.connect import translated
from services.connection.memory import FULL_PERCENT, full_memory, memory_percent
from services.connection.redis_disk import RedisDisk
from services.errors import ChatServerError, ConfigurationError, Unavailable
from services.places import PAGE_SCRIPT
from services.serving.overview import offered_rows
from services.wire.keys import Keys
from services.wire.parsing import MAX_MESSAGES
from webapp.access import local_only
from webapp.access.address import address_of
from webapp.access.newcomers import Newcomers

# The page runs only what came with it; what a model writes is rendered by code of ours and can load nothing.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def make_blueprint(
    redis: Redis, keys: Keys, newcomers: Newcomers, disk: RedisDisk, *, max_message_chars: int, max_message_bytes: int
) -> Blueprint:
    """Routes `/`, `/api/session`, `/api/models`, `/healthz`, `/readyz`."""
    pages = Blueprint("pages", __name__)

    @pages.get("/")
    def chat() -> str:
        _user(newcomers)
        if not PAGE_SCRIPT.exists():
            raise ConfigurationError("the page is not built; run `make page` in the project's folder")
        return render_template(
            "index.html",
            shows_jobs=not local_only.foreign_reader(request),
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
    def healthz() -> Response:
        return jsonify(ok=True)

    @pages.get("/readyz")
    def readyz() -> Response:
        disk.check()
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

    _answer_errors(pages, disk)
    return pages


def _answer_errors(pages: Blueprint, disk: RedisDisk) -> None:
    """The answers to errors of all routes of the app."""

    @pages.app_errorhandler(ChatServerError)
    def failed(error: ChatServerError) -> tuple[Any, int, dict[str, str]]:
        error = disk.explained(error)
        wait = {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s else {}
        return jsonify(error=error.as_dict()), error.http_status, wait

    @pages.app_errorhandler(HTTPException)
    def refused(error: HTTPException) -> Any:
        """Answer errors of HTTP itself. Under /api they have the form of all other errors."""
        if not request.path.startswith("/api/"):
            return error
        code = ChatServerError.code if error.code == 500 else error.name.lower().replace(" ", "_")
        response: Any = error.get_response()
        response.data = json.dumps({"error": {"code": code, "message": error.description}})
        response.content_type = "application/json"
        return response


def _user(newcomers: Newcomers) -> str:
    """The anonymous user of this browser. The first visit makes it."""
    if "user" not in session:
        newcomers.admit(address_of(request))
        session["user"] = f"anon-{secrets.token_hex(12)}"
        session.permanent = True
    return str(session["user"])
