"""What runs: Redis, workers, queues, requests in flight, the newest dead letters; and the end of a request by an
administrator."""

from typing import Any

from flask import Blueprint, Response, jsonify
from redis import Redis

from services.arena.blind import is_blind
from services.chat.requests import Requests
from services.connection.connect import translated
from services.errors import Gone
from services.serving.overview import overview
from services.wire.keys import Keys
from webapp.admin.bodies import text_of

MAX_REQUESTS = 100  # on the page, which asks every few seconds; `requests_in_flight` counts all


def add(routes: Blueprint, redis: Redis, keys: Keys, requests: Requests) -> None:
    """Routes `overview`, `requests/cancel`."""

    @routes.get("/overview")
    def show_overview() -> Response:
        with translated():
            found = overview(redis, keys, max_requests=MAX_REQUESTS)
        return jsonify({**found, "requests": [_blind(row) for row in found["requests"]]})

    @routes.post("/requests/cancel")
    def cancel() -> Response:
        """End a request of any user; its reader sees that it was cancelled."""
        rid = text_of("rid")
        with translated():
            head = requests.journal.glance(rid)
            if head is None:
                raise Gone(f"request {rid!r:.80} is unknown or has expired")
            return jsonify(status=requests.cancel(rid, head.user))


def _blind(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a request; of a battle's answer, which has no vote yet, without what tells the model."""
    return {**row, "model": "", "wid": ""} if is_blind(row["rid"]) else row
