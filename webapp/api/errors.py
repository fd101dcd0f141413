"""Errors as OpenAI's clients expect them: `{error: {message, type, param, code}}`, status, and when to try again."""

import math
from typing import Any

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from services.chat.reader import Done
from services.errors import ChatServerError, QuotaExceeded
from services.openai.failures import error_body, failure, refusal
from webapp.api.intake import idempotency_key

PREFIX = "/v1/"
MAX_RETRY_AFTER_S = 120  # the official client does not wait longer

_SHOULD_RETRY = "x-should-retry"  # the official clients obey it

_RETRIED_IN_VAIN = frozenset({"poison", "cancelled", "out_of_memory"})


def failed(done: Done) -> Response:
    """The response that tells of such an answer."""
    body, status = failure(done)
    response = _response(body, status)
    if idempotency_key(request):
        response.headers[_SHOULD_RETRY] = "false"  # the same key would bring the same end
    return response


def refused(error: ChatServerError) -> Response:
    """The response to what is refused."""
    response = _response(refusal(error), error.http_status)
    wait_s = math.ceil(error.retry_after_s or 0)
    if isinstance(error, QuotaExceeded) and wait_s > MAX_RETRY_AFTER_S:
        response.headers[_SHOULD_RETRY] = "false"  # not before the next day
    elif wait_s:
        wait_s = min(wait_s, MAX_RETRY_AFTER_S)
    if wait_s:
        response.headers["Retry-After"] = str(wait_s)
    return response


def refused_by_http(error: HTTPException) -> Response:
    """The response to an error of HTTP itself, such as a path that is not there."""
    status = error.code or 500
    code = ChatServerError.code if status == 500 else error.name.lower().replace(" ", "_")
    response = _response(error_body(code, status, error.description or error.name), status)
    if allowed := getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(allowed)
    return response


def _response(body: dict[str, Any], status: int) -> Response:
    response = jsonify(body)
    response.status_code = status
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if body["error"]["code"] in _RETRIED_IN_VAIN:
        response.headers[_SHOULD_RETRY] = "false"
    return response
