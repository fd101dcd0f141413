"""`GET /me/usage`: a user's own usage and limits. The user of a key, or of the page's cookie."""

from flask import Blueprint, Response, jsonify, request, session

from services.chat.quotas import Quotas
from services.connection.connect import translated
from services.errors import Unauthorized
from webapp.access.callers import Callers


def make_blueprint(quotas: Quotas, callers: Callers) -> Blueprint:
    """The route."""
    usage = Blueprint("usage", __name__)

    @usage.get("/me/usage")
    def of_who_asks() -> Response:
        with translated():
            user = _user(callers)
            return jsonify(user=user, **quotas.usage(user).row())

    return usage


def _user(callers: Callers) -> str:
    """Raises Unauthorized."""
    if "Authorization" in request.headers:
        return callers.user(request)
    if "user" not in session:
        raise Unauthorized("nobody is known here yet: load the page or /api/session first, or send the header of a key")
    return str(session["user"])
