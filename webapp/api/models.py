"""`GET /v1/models` and `GET /v1/models/{name}`: what can be asked for, also while no worker serves it."""

from typing import Any

from flask import Blueprint, Response, jsonify, request
from redis import Redis

from services.connection.connect import translated
from services.errors import UnknownModel
from services.serving.overview import offered_rows
from services.wire.keys import Keys
from webapp.access.callers import Callers
from webapp.api.document import Document


def make_blueprint(redis: Redis, keys: Keys, callers: Callers, document: Document) -> Blueprint:
    """Both routes."""
    models = Blueprint("models", __name__, url_prefix="/v1")

    def cards() -> list[dict[str, Any]]:
        with translated():
            callers.user(request)
            return [_card(row) for row in offered_rows(redis, keys)]

    @models.get("/models")
    @document.describes(tag="Models")
    def list_models() -> Response:
        """List the models. The first one answers on the chat page when nobody chooses."""
        return jsonify(object="list", data=cards())

    @models.get("/models/<path:name>")
    @document.describes(tag="Models")
    def retrieve_model(name: str) -> Response:
        """One model."""
        for card in cards():
            if card["id"] == name:
                return jsonify(card)
        raise UnknownModel(f"no model is named {name!r:.80}; `/v1/models` lists them")

    return models


def _card(row: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's four fields, and the context length under the name that vLLM gives it."""
    card = {"id": row["name"], "object": "model", "created": int(row["started"]), "owned_by": "chatserver"}
    return {**card, "max_model_len": row["context_tokens"] or None}
