"""`GET /me/usage`: usage, limits and what is stored, of the user of a key or of the page's cookie."""

from flask import Blueprint, Response, jsonify, request

from services.chat.quotas import Quotas
from services.connection.connect import translated
from webapp.access import visitors
from webapp.access.callers import Callers
from webapp.access.stored import Stored
from webapp.server.threads import in_slow_thread


def make_blueprint(quotas: Quotas, callers: Callers, stored: Stored) -> Blueprint:
    """The route."""
    usage = Blueprint("usage", __name__)

    @usage.get("/me/usage")
    @visitors.open_to_all  # whoever has a key has not signed in
    def of_who_asks() -> Response:
        with translated():
            user = _user(callers)
            return jsonify(user=user, **quotas.usage(user).row(), **in_slow_thread(stored.of, user))

    return usage


def _user(callers: Callers) -> str:
    """Raises Unauthorized."""
    return callers.user(request) if "Authorization" in request.headers else visitors.current_user()
