"""The HTTP API of conversations: docs/protocol.md has the routes. The chat page calls it.

Whatever uses the database runs in a thread, so that answers go on meanwhile.
"""

from contextlib import suppress

from flask import Blueprint, Response, jsonify, request, url_for

from services.chat.requests import Requests
from services.connection.connect import translated
from services.conversations.conversations import Conversations
from services.conversations.edits import parse_edits, parse_id
from services.conversations.titling import Titler
from services.errors import Forbidden, Gone, InvalidRequest, Unavailable, shown
from webapp.access.address import address_of
from webapp.access.bodies import json_object
from webapp.access.submit_rate import SubmitRate
from webapp.access.visitors import current_user, guard
from webapp.server.json_answers import json_in_thread
from webapp.server.threads import in_thread

NEW = ("title", "model", "system", "settings", "folder")


def make_blueprint(
    conversations: Conversations, requests: Requests, titler: Titler, submit_rate: SubmitRate
) -> Blueprint:
    """Routes `/api/conversations…`."""
    routes = Blueprint("conversations", __name__, url_prefix="/api/conversations")
    guard(routes)
    _add_reading(routes, conversations)
    _add_writing(routes, conversations)
    _add_removing(routes, conversations, requests)
    _add_titling(routes, titler, submit_rate)
    return routes


def _add_reading(routes: Blueprint, conversations: Conversations) -> None:
    @routes.get("")
    def page() -> Response:
        folder, before = request.args.get("folder"), request.args.get("before", "")
        user, limit = current_user(), limit_in_query(50)
        found = in_thread(conversations.page, user, before=before, limit=limit, folder=folder or None)
        return jsonify(found.as_dict())

    @routes.get("/<cid>")
    def find(cid: str) -> Response:
        user = current_user()
        return json_in_thread(lambda: conversations.find(user, cid).as_dict())


def _add_writing(routes: Blueprint, conversations: Conversations) -> None:
    @routes.post("")
    def create() -> tuple[Response, int]:
        body = json_object()
        edits = parse_edits({name: value for name, value in body.items() if name != "id"}, NEW)
        tree, is_new = in_thread(conversations.create, current_user(), parse_id(body.get("id")), edits)
        return json_in_thread(tree.as_dict), 201 if is_new else 200

    @routes.patch("/<cid>")
    def edit(cid: str) -> Response:
        return jsonify(in_thread(conversations.edit, current_user(), cid, parse_edits(json_object())))

    @routes.post("/<cid>/share")
    def share(cid: str) -> Response:
        secret = in_thread(conversations.share, current_user(), cid)
        return jsonify(url=url_for("shared.page", secret=secret))

    @routes.delete("/<cid>/share")
    def unshare(cid: str) -> Response:
        in_thread(conversations.unshare, current_user(), cid)
        return jsonify(ok=True)


def _add_removing(routes: Blueprint, conversations: Conversations, requests: Requests) -> None:
    @routes.delete("/<cid>")
    def delete(cid: str) -> Response:
        undo_until_ms, unfinished = in_thread(conversations.delete, current_user(), cid)
        for rid in unfinished:
            _cancel(requests, rid)
        return jsonify(undo_until_ms=undo_until_ms)

    @routes.post("/<cid>/restore")
    def restore(cid: str) -> Response:
        return jsonify(in_thread(conversations.restore, current_user(), cid))


def _cancel(requests: Requests, rid: str) -> None:
    """End an answer if it runs. Nobody waits for it: one that cannot be reached ends by itself."""
    with suppress(Gone, Forbidden, Unavailable), translated():
        requests.cancel(rid, current_user())


def limit_in_query(usual: int) -> int:
    """`limit` of this request's address. Raises InvalidRequest."""
    text = request.args.get("limit", str(usual))
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 200):
        raise InvalidRequest(f"limit={shown(text)} is not a number from 1 to 200", field="limit")
    return int(text)


def _add_titling(routes: Blueprint, titler: Titler, submit_rate: SubmitRate) -> None:
    @routes.post("/<cid>/title")
    def title(cid: str) -> Response:
        user, address = current_user(), address_of(request)
        submit_rate.admit(user, address)
        return jsonify(titler.title(user, cid, address))
