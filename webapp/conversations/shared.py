"""A conversation that its owner shares by a link: whoever has the link reads it, and nothing else."""

from flask import Blueprint, Response, render_template

from services.conversations.conversations import Conversations
from webapp.access.visitors import open_to_all
from webapp.server.json_answers import json_in_thread


def make_blueprint(conversations: Conversations) -> Blueprint:
    """Routes `/shared/<secret>` and `/api/shared/<secret>`, for everybody."""
    routes = Blueprint("shared", __name__)

    @routes.get("/shared/<secret>")
    @open_to_all
    def page(secret: str) -> str:
        return render_template("shared.html", secret=secret)

    @routes.get("/api/shared/<secret>")
    @open_to_all
    def conversation(secret: str) -> Response:
        return json_in_thread(lambda: conversations.shared(secret))

    @routes.after_request
    def fresh(response: Response) -> Response:
        response.headers["Cache-Control"] = "private, no-store"
        response.headers["X-Robots-Tag"] = "noindex"
        return response

    return routes
