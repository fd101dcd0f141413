"""Reads the JSON bodies of the admin page."""

from typing import Any

from flask import request

from services.errors import InvalidRequest, shown


def text_of(field: str) -> str:
    """A text that the body must have. Raises InvalidRequest."""
    value = _body().get(field)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{field} must be a text, not {shown(value)}", field=field)
    return value


def _body() -> dict[str, Any]:
    raw = request.get_json()
    if not isinstance(raw, dict):
        raise InvalidRequest(f"send a JSON object, not {shown(raw)}")
    return raw
