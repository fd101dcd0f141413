"""The page `/arena` and its API. docs/protocol.md has the routes; the answers come by the socket's `watch`."""

from collections.abc import Callable, Sequence

from flask import Blueprint, Response, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from services.arena.battles import Battles
from services.arena.standings import Standings
from services.connection.connect import translated
from services.errors import InvalidRequest, Unauthorized, shown
from webapp.access.address import address_of
from webapp.access.bodies import json_object
from webapp.access.submit_rate import SubmitRate
from webapp.access.visitors import current_user, guard, is_admin
from webapp.arena.asking import Arena, parse_challenge, parse_question
from webapp.server.threads import in_slow_thread, in_thread


def make_blueprint(
    battles: Battles,
    arena: Arena,
    standings: Standings,
    served: Callable[[], Sequence[str]],
    submit_rate: SubmitRate,
    *,
    max_chars: int,
) -> Blueprint:
    """Routes `/api/arena/…`."""
    routes = Blueprint("arena", __name__, url_prefix="/api/arena")
    guard(routes)

    @routes.get("/models")
    def models() -> Response:
        with translated():
            return jsonify(models=list(served()))

    @routes.get("/leaderboard")
    def leaderboard() -> Response:
        return jsonify(in_slow_thread(standings.board).as_dict())

    _add_battles(routes, battles, arena, submit_rate, max_chars)
    return routes


def _add_battles(routes: Blueprint, battles: Battles, arena: Arena, submit_rate: SubmitRate, max_chars: int) -> None:
    def admitted() -> tuple[str, str]:
        """Who asks, and from where. A question to two models counts twice."""
        user, address = current_user(), address_of(request)
        for _ in range(2):
            submit_rate.admit(user, address)
        return user, address

    @routes.post("/battles")
    def begin() -> tuple[Response, int]:
        user, address = admitted()
        challenge = parse_challenge(json_object(), max_chars=max_chars)
        return jsonify(battle=arena.begin(user, address, challenge).shown()), 201

    @routes.get("/battles/<battle_id>")
    def find(battle_id: str) -> Response:
        return jsonify(battle=in_thread(battles.get, current_user(), battle_id).shown())

    @routes.post("/battles/<battle_id>/questions")
    def ask(battle_id: str) -> Response:
        user, address = admitted()
        body = json_object()
        number, question = body.get("number"), parse_question(body.get("question"), max_chars)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InvalidRequest(f"number {shown(number)} is not that of a further question, from 1", field="number")
        return jsonify(battle=arena.ask(user, address, battle_id, number, question).shown())

    @routes.post("/battles/<battle_id>/vote")
    def vote(battle_id: str) -> Response:
        return jsonify(battle=in_thread(battles.vote, current_user(), battle_id, json_object().get("vote")).shown())


def make_page() -> Blueprint:
    """The page `/arena`."""
    pages = Blueprint("arena_page", __name__)

    @pages.get("/arena")
    def page() -> str | AnyResponse:
        try:
            current_user()
        except Unauthorized:
            return redirect("/")  # where a browser gets its cookie, or signs in
        return render_template("arena.html", is_admin=is_admin())

    return pages
