"""Log lines: one per record, the request id as a field."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from services.logs import configure_logging


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def test_a_json_line_carries_the_request_id_and_survives_odd_values() -> None:
    stream = io.StringIO()
    configure_logging("json", "INFO", stream, process="web")
    logging.getLogger("workers.loop").warning("lost %s\nhere", "lease", extra={"rid": "r1", "odd": {1, 2}})
    entry = json.loads(stream.getvalue())
    assert entry["message"] == "lost lease\nhere"
    assert (entry["rid"], entry["level"], entry["logger"]) == ("r1", "WARNING", "workers.loop")
    assert stream.getvalue().count("\n") == 1


def test_a_human_line_ends_with_its_fields() -> None:
    stream = io.StringIO()
    configure_logging("human", "INFO", stream, process="web")
    logging.getLogger("x").info("hello", extra={"rid": "r1"})
    assert stream.getvalue().endswith(" INFO x: hello rid=r1\n")


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_an_exception_is_written_with_its_trace(log_format: str) -> None:
    stream = io.StringIO()
    configure_logging(log_format, "INFO", stream, process="web")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "ValueError: why" in stream.getvalue()


def test_less_severe_records_are_left_out() -> None:
    stream = io.StringIO()
    configure_logging("human", "WARNING", stream, process="web")
    logging.getLogger("x").info("hello")
    assert stream.getvalue() == ""
