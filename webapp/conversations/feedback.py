"""`POST /api/messages/<id>/feedback`: what the reader thinks of an answer. The chat page calls it."""

from dataclasses import asdict

from flask import Blueprint, Response, jsonify

from services.conversations.feedback import Feedback, parse_judgement
from webapp.access.bodies import json_object
from webapp.access.visitors import current_user, guard
from webapp.server.threads import in_thread


def make_blueprint(feedback: Feedback, *, max_chars: int) -> Blueprint:
    """`{verdict, reason?, better?}` → `{feedback}`: what holds now, null when it was taken back."""
    routes = Blueprint("feedback", __name__)
    guard(routes)

    @routes.post("/api/messages/<mid>/feedback")
    def judge(mid: str) -> Response:
        judgement = parse_judgement(json_object(), max_chars=max_chars)
        holds = in_thread(feedback.add, current_user(), mid, judgement)
        return jsonify(feedback=None if holds is None else asdict(holds))

    return routes
