"""JSON answers that may be large: made in a thread, so that they delay nobody else's. The routes call it."""

import json
from collections.abc import Callable

import orjson
from flask import Response

from webapp.server.threads import in_thread


def json_in_thread(told: Callable[[], object]) -> Response:
    """The answer that holds what `told` returns. `told` runs in a thread, without the request."""
    return Response(in_thread(lambda: encoded(told())), mimetype="application/json")


def encoded(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a stored schema may hold a number beyond 64 bits, or half of a surrogate pair
        return json.dumps(value).encode()
