"""Reads a POST of the API: its body, and the id under which what it asks is kept."""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

from flask import Request
from pydantic import BaseModel

from services.errors import InvalidRequest, shown
from services.openai.bodies import UNSERVED, parsed
from webapp.server.http_server import BODY_READ

IDEMPOTENCY_KEY = "Idempotency-Key"
JSON = "application/json"

Asked = TypeVar("Asked", bound=BaseModel)


def idempotency_key(request: Request) -> str:
    """What the client calls its question; empty if it has no name for it."""
    return request.headers.get(IDEMPOTENCY_KEY, "")


def body_of(request: Request) -> bytes:
    """The bytes of a body, which nobody else holds from now on: an answer may last for minutes."""
    if request.mimetype != JSON:
        raise InvalidRequest(f"send the header `Content-Type: {JSON}`, not {shown(request.mimetype or 'none')}")
    data = request.get_data(cache=False)
    request.environ.get(BODY_READ, bool)()
    return data


def asked(
    request: Request, user: str, kind: type[Asked], unserved: Mapping[str, tuple[Any, ...]] = UNSERVED
) -> tuple[str, Asked]:
    """What the ids of a body's requests begin with, and the body. Nobody holds its bytes afterwards.

    With an idempotency key the id is the same for the same body. The queue accepts an id once: whoever repeats such a
    body reads the answer of the first.
    """
    data = body_of(request)
    return _base_id(request, user, data), parsed(data, kind, unserved)


def _base_id(request: Request, user: str, data: bytes) -> str:
    key = idempotency_key(request)
    if not key:
        return uuid.uuid4().hex
    whole = (user.encode(), request.path.encode(), key.encode(), data)
    return "key-" + hashlib.sha256(b"\0".join(hashlib.sha256(each).digest() for each in whole)).hexdigest()[:40]
