"""The log of a run on the sky: each line once, whatever becomes of the machines that it is on."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.sky_target import new_lines

FIRST = [f"(train-x, pid=7) step {number}" for number in range(1, 9)]
SECOND = [f"(train-x, pid=9) step {number}" for number in range(5, 20)]


@given(st.lists(st.integers(0, len(FIRST)), max_size=6).map(sorted))
def test_a_growing_log_is_told_once(lengths: list[int]) -> None:
    told, cursor = [], ""
    for length in [*lengths, len(FIRST)]:
        lines, cursor = new_lines(FIRST[:length], cursor)
        told += lines
    assert told == [f"step {number}" for number in range(1, 9)]


def test_after_a_recovery_the_new_log_is_told_from_its_beginning() -> None:
    _, cursor = new_lines(FIRST[:3], "")
    lines, cursor = new_lines(SECOND, cursor)
    assert lines[0] == "step 5" and len(lines) == len(SECOND)
    assert new_lines(SECOND, cursor) == ([], cursor)


def test_while_there_are_no_machines_nothing_is_told_again() -> None:
    _, cursor = new_lines(FIRST, "")
    assert new_lines([], cursor) == ([], cursor)
    assert new_lines(FIRST, cursor) == ([], cursor)
