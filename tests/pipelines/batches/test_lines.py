"""The input of a batch: checked line by line, read again from any place, never in memory as a whole."""

import tracemalloc
from pathlib import Path

from pipelines.batches.lines import MAX_LINE_BYTES, check_input, read_lines
from services.jobs.batches import MAX_LINES
from tests.pipelines.celery.batch_processes import CHAT, as_file, chat_line, chat_lines


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_largest_batch_is_checked_and_read_without_being_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        for line in range(MAX_LINES):
            file.write(
                b'{"custom_id":"%d","method":"POST","url":"%s","body":{"x":"%s"}}\n'
                % (line, CHAT.encode(), b"y" * 1000)
            )
    tracemalloc.start()
    assert check_input(path, CHAT) == (MAX_LINES, [])
    last = 0
    for each in read_lines(path, 0, 0):
        last = each.number
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert last == MAX_LINES and peak < 16 * 2**20 < path.stat().st_size
    with path.open("ab") as file:
        file.write(as_file([chat_line("one more", "x")]))
    assert check_input(path, CHAT)[1][0]["code"] == "too_many_requests"


def test_reading_goes_on_behind_any_line(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", b"\n" + as_file(chat_lines(3)) + b"\n \n" + as_file([chat_line("ü", "ö")]))
    lines = list(read_lines(path, 0, 0))
    assert [line.custom_id for line in lines] == ["q0", "q1", "q2", "ü"] and [line.number for line in lines] == [
        1,
        2,
        3,
        4,
    ]
    for index, line in enumerate(lines):
        assert list(read_lines(path, line.number, line.end)) == lines[index + 1 :]


def test_a_line_of_any_length_is_refused_without_being_read(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", b"x" * (MAX_LINE_BYTES + 2))
    assert check_input(path, CHAT)[1][0]["code"] == "line_too_long"
