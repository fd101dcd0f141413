"""Reads the input of a batch, a line of JSON for each question, and says what is wrong with the file as a whole."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from services.errors import shown
from services.jobs.batches import MAX_LINES

MAX_LINE_BYTES = 4_194_304
MAX_ERRORS = 20  # that are told
MAX_ID_CHARS = 512


@dataclass(frozen=True)
class BatchLine:
    """One question. `number` counts from 1; `end` is where the next line begins, in bytes."""

    number: int
    end: int
    custom_id: str
    body: Any


def read_lines(path: Path, number: int, offset: int) -> Iterator[BatchLine]:
    """The lines of a checked file behind line `number`, which ended at `offset`."""
    with path.open("rb") as file:
        file.seek(offset)
        for text in file:
            offset += len(text)
            if text.strip():
                number += 1
                raw = orjson.loads(text)
                yield BatchLine(number, offset, raw["custom_id"], raw.get("body"))


def check_input(path: Path, endpoint: str) -> tuple[int, list[dict[str, Any]]]:
    """The number of questions, and what is wrong: `{code, line, message, param}` each.

    It holds a digest of each id and no line.
    """
    errors: list[dict[str, Any]] = []
    seen: set[bytes] = set()
    number = 0
    with path.open("rb") as file:
        while (text := file.readline(MAX_LINE_BYTES + 1)) and len(errors) < MAX_ERRORS:
            if not text.strip():
                continue
            number += 1
            if number > MAX_LINES:
                errors.append(_error("too_many_requests", None, f"a batch has at most {MAX_LINES:,} lines"))
                break
            if len(text) > MAX_LINE_BYTES:
                errors.append(_error("line_too_long", number, f"a line has at most {MAX_LINE_BYTES:,} bytes"))
                break
            if problem := _problem(text, endpoint, seen):
                errors.append({**problem, "line": number})
    if not number:
        errors.append(_error("empty_file", None, "the file has no line"))
    return number, errors


def _problem(text: bytes, endpoint: str, seen: set[bytes]) -> dict[str, Any] | None:
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _error("invalid_json_line", None, f"the line is not JSON: {error}")
    if not isinstance(raw, dict):
        return _error("invalid_json_line", None, "the line is not a JSON object")
    custom_id = raw.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARS:
        message = f"custom_id={shown(custom_id)} is not a text of 1 to {MAX_ID_CHARS} characters"
        return _error("invalid_custom_id", None, message, "custom_id")
    digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if digest in seen:
        return _error("duplicate_custom_id", None, f"custom_id={shown(custom_id)} stands in two lines", "custom_id")
    seen.add(digest)
    if raw.get("method") != "POST":
        return _error("invalid_method", None, f"method={shown(raw.get('method'))} is not POST", "method")
    if raw.get("url") != endpoint:
        return _error("mismatched_url", None, f"url={shown(raw.get('url'))} is not the batch's {endpoint}", "url")
    return None


def _error(code: str, line: int | None, message: str, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": param}
