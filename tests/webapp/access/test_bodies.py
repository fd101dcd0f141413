"""A body that is no JSON object is refused in one way, whatever is wrong with it."""

import pytest
from flask import Flask

from services.errors import InvalidRequest
from webapp.access.bodies import json_object


def test_an_object_is_read() -> None:
    with Flask(__name__).test_request_context(method="POST", json={"a": [1]}):
        assert json_object() == {"a": [1]}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"r1"', b"null", b"\xff", b"[" * 10_000])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_anything_else_is_refused(body: bytes, kind: str) -> None:
    with (
        Flask(__name__).test_request_context(method="POST", data=body, content_type=kind),
        pytest.raises(InvalidRequest, match="the body must be a JSON object"),
    ):
        json_object()
