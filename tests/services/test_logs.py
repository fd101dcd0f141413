"""Log lines: one per record, the request id as a field, also of lines that somebody else writes."""

import io
import json
import logging
import os
import threading
from typing import Any

import pytest

from services.logs import about, configure_logging

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.fixture
def stream() -> io.StringIO:
    """What JSON logging writes."""
    written = io.StringIO()
    configure_logging("json", "INFO", written, process="worker")
    return written


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_carries_the_request_id_and_survives_odd_values(stream: io.StringIO) -> None:
    logging.getLogger("workers.loop").warning("lost %s\nhere", "lease", extra={"rid": "r1", "odd": {1, 2}})
    (entry,) = entries(stream)
    assert entry["message"] == "lost lease\nhere"
    assert (entry["rid"], entry["level"], entry["logger"]) == ("r1", "WARNING", "workers.loop")
    assert (entry["process"], entry["pid"]) == ("worker", os.getpid())


def test_a_forked_process_names_itself() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as out:
        configure_logging("json", "INFO", out, process="clean")
        child = os.fork()
        if child == 0:
            logging.getLogger("x").info("hello")
            os._exit(0)
        os.waitpid(child, 0)
    with os.fdopen(read) as written:
        entry = json.loads(written.readline())
    assert (entry["process"], entry["pid"]) == ("clean", child)


def test_whatever_is_logged_inside_is_about_the_request(stream: io.StringIO) -> None:
    with about(rid="r1", sid="s"):
        logging.getLogger("some.library").info("one")
        with about(rid="r2"):
            logging.getLogger("x").info("two")
        logging.getLogger("x").info("three", extra={"sid": "given"})
    logging.getLogger("x").info("four")
    found = [(entry["message"], entry.get("rid"), entry.get("sid")) for entry in entries(stream)]
    assert found == [("one", "r1", "s"), ("two", "r2", "s"), ("three", "r1", "given"), ("four", None, None)]


def test_an_error_inside_ends_what_lines_are_about(stream: io.StringIO) -> None:
    with pytest.raises(ValueError, match="x"), about(rid="r1"):
        raise ValueError("x")
    logging.getLogger("x").info("after")
    assert "rid" not in entries(stream)[0]


def test_threads_do_not_share_what_lines_are_about(stream: io.StringIO) -> None:
    def other() -> None:
        logging.getLogger("x").info("other")

    with about(rid="r1"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "rid" not in entries(stream)[0]


def test_a_human_line_ends_with_its_fields() -> None:
    stream = io.StringIO()
    configure_logging("human", "INFO", stream, process="web")
    with about(rid="r1"):
        logging.getLogger("x").info("hello", extra={"code": "busy"})
    assert stream.getvalue().endswith(" INFO x: hello rid=r1 code=busy\n")


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
