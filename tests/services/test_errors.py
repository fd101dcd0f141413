"""An error has fields; a terminal and a client are shown all of them, and nobody reads them out of a sentence."""

import ast

import pytest

from services.errors import Busy, ConfigurationError, InvalidRequest
from services.places import ROOT


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConfigurationError("no model"), "no model"),
        (ConfigurationError("rolls is no step", source="july.yaml", line=3), "july.yaml:3: rolls is no step"),
        (ConfigurationError("no YAML", source="july.yaml", line=0), "july.yaml: no YAML"),
        (ConfigurationError("no cloud", remedy="run `sky check`"), "no cloud. Remedy: run `sky check`"),
    ],
)
def test_a_terminal_shows_place_message_and_remedy(error: ConfigurationError, sentence: str) -> None:
    assert str(error) == sentence


def test_a_client_gets_each_field_that_there_is() -> None:
    assert InvalidRequest("no").as_dict() == {"code": "invalid_request", "message": "no"}
    assert Busy("full", retry_after_s=0.0).as_dict() == {"code": "busy", "message": "full", "retry_after_s": 0.0}
    whole = InvalidRequest("no", remedy="yes", field="name", source="r.yaml", line=0).as_dict()
    assert whole == {"code": "invalid_request", "message": "no", "remedy": "yes", "field": "name", "line": 0}


def test_what_is_wrong_in_a_file_is_wrong_in_a_request() -> None:
    wrong = ConfigurationError("no", remedy="yes", field="name", source="r.yaml", line=4)
    refused = InvalidRequest.of(wrong)
    assert (refused.code, refused.http_status, str(refused)) == ("invalid_request", 400, str(wrong))
    assert refused.as_dict() == {**wrong.as_dict(), "code": "invalid_request"}


PARTS = {
    "partition",
    "rpartition",
    "split",
    "removeprefix",
    "removesuffix",
    "replace",
    "find",
    "startswith",
    "endswith",
}


def read_back(source: str) -> set[str]:
    """Where code takes a part out of the message of one of our errors."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PARTS
        text = ast.unparse(node.func.value) if called else ""  # type: ignore[attr-defined]
        inside = isinstance(node, ast.Compare) and any(isinstance(op, ast.In) for op in node.ops)
        text = text or (ast.unparse(node.comparators[0]) if inside else "")  # type: ignore[attr-defined]
        if "error.message" in text:
            found.add(ast.unparse(node))
    return found


def test_no_error_is_read_back_out_of_its_sentence() -> None:
    for package in ("services", "webapp", "workers", "pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            if "node_modules" not in path.parts:
                assert not read_back(path.read_text("utf-8")), path.relative_to(ROOT)


@pytest.mark.parametrize(
    "line",
    [
        "a, _, b = error.message.partition(' Remedy: ')",
        "field = 'data' if error.message.startswith('the data') else ''",
        "raise E(error.message.replace('REDIS_URL', name, 1))",
        "taken = 'already in use' in error.message",
    ],
)
def test_one_that_is_read_back_is_noticed(line: str) -> None:
    assert read_back(line)
