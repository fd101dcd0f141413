"""The fields of the admin page's JSON bodies."""

from typing import TypeVar

from services.errors import InvalidRequest, shown
from webapp.access.bodies import json_object

Value = TypeVar("Value", str, bool, int, float)

KINDS: dict[type, str] = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def text_of(field: str) -> str:
    """A text that the body must have. Raises InvalidRequest."""
    value = given(field, str)
    if not value:
        raise InvalidRequest(f"{field} must be a text that is not empty", field=field)
    return value


def given(field: str, kind: type[Value]) -> Value | None:
    """A value that the body may have. Raises InvalidRequest for one of another kind."""
    value = json_object().get(field)
    if kind is float and type(value) is int:
        value = float(value)
    if value is not None and type(value) is not kind:
        raise InvalidRequest(f"{field} must be {KINDS[kind]}, not {shown(value)}", field=field)
    return value
