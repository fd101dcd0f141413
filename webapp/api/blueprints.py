"""All of `/v1` in one application, and which pages of other origins may use it."""

import uuid
from collections.abc import Collection

from flask import Blueprint, Flask, Response, g, request

from webapp.api.document import Document
from webapp.api.errors import PREFIX
from webapp.server.http_server import BODY_READ

_ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Expose-Headers": "x-request-id, x-should-retry, Retry-After",
    "Access-Control-Max-Age": "600",
}


def register(app: Flask, parts: Collection[Blueprint], document: Document, allowed_origins: Collection[str]) -> None:
    """Add the routes, and at last their document."""
    for part in [*parts, document.make_blueprint(app)]:
        app.register_blueprint(part)

    @app.before_request
    def forget_body() -> None:
        """Only a POST has a body that somebody reads."""
        if request.path.startswith(PREFIX) and request.method != "POST":
            request.environ.get(BODY_READ, bool)()

    @app.after_request
    def add_headers(response: Response) -> Response:
        if request.path.startswith(PREFIX):
            response.headers["x-request-id"] = g.get("request_id") or uuid.uuid4().hex
            if (origin := request.headers.get("Origin", "")) in allowed_origins:
                _share(response, origin)
        return response


def _share(response: Response, origin: str) -> None:
    """Let a page of this origin read the response. Which headers it sends is its business: the key decides."""
    response.headers.update({**_ALLOWED, "Access-Control-Allow-Origin": origin})
    if asked := request.headers.get("Access-Control-Request-Headers"):
        response.headers["Access-Control-Allow-Headers"] = asked
    response.vary.update(("Origin", "Access-Control-Request-Headers"))
