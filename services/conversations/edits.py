"""Fields of a conversation from untrusted JSON. The routes and the import call it."""

from collections.abc import Mapping
from typing import Any

import orjson

from services.errors import InvalidRequest, shown
from services.wire.keys import check_name
from services.wire.parsing import parse_sampling

MAX_TITLE_CHARS = 200
MAX_FOLDER_CHARS = 100
MAX_SYSTEM_CHARS = 200_000
FIELDS = ("title", "folder", "pinned", "system", "settings", "model", "current_id")


def parse_edits(raw: object, allowed: tuple[str, ...] = FIELDS) -> dict[str, Any]:
    """The fields that are there, checked. Raises InvalidRequest naming the field."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"the body must be an object, not {type(raw).__name__}")
    if unknown := sorted(map(str, set(raw) - set(allowed))):
        raise InvalidRequest(f"unknown field {unknown[0]!r:.80}; known: {', '.join(allowed)}", field=unknown[0][:80])
    return {name: _parsed(name, value) for name, value in raw.items()}


def parse_id(raw: object, name: str = "id") -> str:
    """An id that also stands in addresses."""
    text = check_name(raw, name)
    if "/" in text or set(text) == {"."}:
        raise InvalidRequest(
            f"{name}={shown(text)} may not have a slash; use letters, digits, `.`, `_`, `-`", field=name
        )
    return text


def parse_settings(raw: object) -> dict[str, Any]:
    """`{sampling?, thinking?}`, as a request has them."""
    if not isinstance(raw, Mapping) or set(raw) - {"sampling", "thinking"}:
        raise InvalidRequest("settings must be an object with sampling and thinking", field="settings")
    parse_sampling(raw.get("sampling") or {})
    if raw.get("thinking") not in (None, True, False):
        raise InvalidRequest(f"settings.thinking={shown(raw['thinking'])} is not true or false", field="settings")
    return {name: value for name, value in raw.items() if value is not None}


def parse_text(raw: object, name: str, max_chars: int) -> str:
    """A text of ours to store. Raises InvalidRequest."""
    if not isinstance(raw, str) or len(raw) > max_chars:
        raise InvalidRequest(f"{name} must be text of at most {max_chars:,} characters", field=name)
    try:
        raw.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} holds half of a surrogate pair, which is not valid Unicode", field=name) from None
    return raw


def parse_object(raw: object, name: str, max_bytes: int = 1_000_000) -> dict[str, Any]:
    """An object that is stored as it is; empty for none. Raises InvalidRequest for what no JSON of ours can hold."""
    if raw is not None and not isinstance(raw, dict):
        raise InvalidRequest(f"{name} must be an object", field=name)
    try:
        size = len(orjson.dumps(raw or {}))
    except (TypeError, RecursionError) as error:
        raise InvalidRequest(f"{name} holds what JSON cannot: {error}", field=name) from None
    if size > max_bytes:
        raise InvalidRequest(f"{name} has {size:,} bytes; the limit is {max_bytes:,}", field=name)
    return raw or {}


def _parsed(name: str, value: object) -> Any:
    if name == "title":
        return _parse_title(value)
    if name == "folder":
        return parse_text(value, name, MAX_FOLDER_CHARS).strip()
    if name == "system":
        return parse_text(value, name, MAX_SYSTEM_CHARS)
    if name == "settings":
        return parse_settings(value)
    if name == "pinned":
        return _parse_pinned(value)
    if name == "model":
        return check_name(value, name) if value != "" else ""
    return None if value is None else check_name(value, name)


def _parse_title(value: object) -> str:
    title = " ".join(parse_text(value, "title", MAX_TITLE_CHARS).split())
    if not title:
        raise InvalidRequest("title is empty; write a few words", field="title")
    return title


def _parse_pinned(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"pinned={shown(value)} is not true or false", field="pinned")
    return value
