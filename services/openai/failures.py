"""Failures as OpenAI's clients expect them: `{error: {message, type, param, code}}`, with the status of HTTP."""

from typing import Any

from services.chat.reader import Done
from services.errors import ChatServerError, all_errors

_CODES = {  # ours → what clients look for
    "unknown_model": "model_not_found",
    "prompt_too_long": "context_length_exceeded",
    "content_refused": "content_filter",
    "busy": "rate_limit_exceeded",
    "user_limit": "rate_limit_exceeded",
    "quota_exceeded": "insufficient_quota",
    "unauthorized": "invalid_api_key",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Ends of a request that are no exception of ours; the last is no error of the server's, and asking again is no remedy.
_ENDS = {"poison": 500, "expired": 503, "interrupted": 500, "cancelled": 409}
_STATUS = {kind.code: kind.http_status for kind in all_errors()} | _ENDS


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


def refusal(error: ChatServerError) -> dict[str, Any]:
    """The body for what is refused."""
    message = f"{error.message}; {error.remedy}" if error.remedy else error.message
    return error_body(error.code, error.http_status, message, error.field or None)
