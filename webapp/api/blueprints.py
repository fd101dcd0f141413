"""All of `/v1` in one application, and which pages of other origins may use it."""

from collections.abc import Collection

from flask import Blueprint, Flask, Response, request

from webapp.api.document import Document
from webapp.api.errors import PREFIX

_ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
    "Access-Control-Expose-Headers": "x-request-id, Retry-After",
    "Access-Control-Max-Age": "600",
}


def register(app: Flask, parts: Collection[Blueprint], document: Document, allowed_origins: Collection[str]) -> None:
    """Add the routes, and at last their document."""
    for part in [*parts, document.make_blueprint(app)]:
        app.register_blueprint(part)

    @app.after_request
    def share(response: Response) -> Response:
        origin = request.headers.get("Origin", "")
        if request.path.startswith(PREFIX) and origin in allowed_origins:
            response.headers.update({**_ALLOWED, "Access-Control-Allow-Origin": origin})
            response.vary.add("Origin")
        return response
