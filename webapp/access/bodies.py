"""Reads the JSON body of a request. The routes of conversations, of the arena and of the admin page call it."""

from typing import Any

from flask import request

from services.errors import InvalidRequest


def json_object() -> dict[str, Any]:
    """The body of this request. Raises InvalidRequest for anything but a JSON object."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # lists in lists, thousands deep
        body = None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body
