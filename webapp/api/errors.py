"""Errors as OpenAI's clients expect them: `{error: {message, type, param, code}}`, status, and when to try again."""

import math
from typing import Any

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from services.chat.reader import Done
from services.errors import ChatServerError, all_errors
from webapp.api.orders import idempotency_key

PREFIX = "/v1/"
MAX_RETRY_AFTER_S = 120  # the official client does not wait longer

_SHOULD_RETRY = "x-should-retry"  # the official clients obey it

_CODES = {  # ours → what clients look for
    "unknown_model": "model_not_found",
    "prompt_too_long": "context_length_exceeded",
    "busy": "rate_limit_exceeded",
    "user_limit": "rate_limit_exceeded",
    "unauthorized": "invalid_api_key",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Ends of a request that are no exception of ours; the last is no error of the server's, and asking again is no remedy.
_ENDS = {"poison": 500, "expired": 503, "interrupted": 500, "cancelled": 409}
_STATUS = {kind.code: kind.http_status for kind in all_errors()} | _ENDS
_RETRIED_IN_VAIN = frozenset({"poison", "cancelled", "out_of_memory"})


def error_body(code: str, status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": _CODES.get(code, code)}}


def failure(done: Done) -> tuple[dict[str, Any], int]:
    """The body and the status for an answer that did not finish."""
    code = "cancelled" if done.status == "cancelled" else done.code
    status = _STATUS.get(code, 500)
    message = done.message or ("this answer was cancelled" if code == "cancelled" else f"the answer failed: {code}")
    return error_body(code, status, message), status


def failed(done: Done) -> Response:
    """The response that tells of such an answer."""
    body, status = failure(done)
    response = _response(body, status)
    if idempotency_key(request):
        response.headers[_SHOULD_RETRY] = "false"  # the same key would bring the same end
    return response


def refused(error: ChatServerError) -> Response:
    """The response to what is refused."""
    message = f"{error.message}; {error.remedy}" if error.remedy else error.message
    response = _response(error_body(error.code, error.http_status, message, error.field or None), error.http_status)
    if error.retry_after_s:
        response.headers["Retry-After"] = str(min(math.ceil(error.retry_after_s), MAX_RETRY_AFTER_S))
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
