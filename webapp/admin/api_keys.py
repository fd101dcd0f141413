"""The API keys of all users: listed, revoked. Nothing here can show a key."""

from dataclasses import asdict

from flask import Blueprint, Response, jsonify

from services.accounts.api_keys import ApiKeys
from services.connection.connect import translated
from webapp.admin.bodies import text_of


def add(routes: Blueprint, keys: ApiKeys) -> None:
    """Routes `keys`, `keys/revoke`."""

    @routes.get("/keys")
    def list_keys() -> Response:
        with translated():
            return jsonify(keys=[asdict(key) for key in keys.list()])

    @routes.post("/keys/revoke")
    def revoke() -> Response:
        """No request with this key is served from now on; answers that run go on."""
        with translated():
            return jsonify(revoked=keys.revoke(text_of("name"), text_of("user")).name)
