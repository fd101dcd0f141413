"""The log of a run on SkyPilot: each line once, whatever becomes of the machines that it is on."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.launching.sky import Log, SkyJob, SkyPilot
from pipelines.launching.sky_target import LATE_S, SkyTarget, new_lines
from services.errors import Unavailable

FIRST = ["(setup pid=7) Setting up, 07:46 UTC", *(f"(train-x, pid=9) step {number}" for number in range(1, 9))]
SECOND = ["(setup pid=7) Setting up, 07:52 UTC", *(f"(train-x, pid=9) step {number}" for number in range(5, 20))]
MANAGED = {"target": "sky", "kind": "managed", "name": "train-x-0123abcd", "request": ""}


@given(st.lists(st.integers(0, len(FIRST)), max_size=6))
def test_a_log_is_told_once_though_reads_of_it_break_off(lengths: list[int]) -> None:
    told, cursor = [], ""
    for length in [*lengths, len(FIRST)]:
        lines, cursor = new_lines(FIRST[:length], cursor)
        told += lines
    assert told[1:] == [f"step {number}" for number in range(1, 9)]


def test_after_a_recovery_the_new_log_is_told_from_its_beginning() -> None:
    """On machines that are alike down to the ids of processes."""
    _, cursor = new_lines(FIRST, "")
    lines, cursor = new_lines(SECOND[:4], cursor)
    assert lines[1:] == ["step 5", "step 6", "step 7"]
    lines, cursor = new_lines(SECOND, cursor)
    assert lines[0] == "step 8" and len(lines) == 12
    assert new_lines(SECOND, cursor) == ([], cursor)


def test_while_there_are_no_machines_nothing_is_told_again() -> None:
    _, cursor = new_lines(FIRST, "")
    assert new_lines([], cursor) == ([], cursor)
    assert new_lines(FIRST, cursor) == ([], cursor)


class OneJob(SkyPilot):
    """It says of one managed job what it is told to say."""

    def __init__(self, status: str, state: Any, ended_s: float = 0.0, log: Log | None = None) -> None:
        self._job = SkyJob(1, status, state, time.time() - 500, ended_s)
        self._log = log

    def managed_jobs(self, name: str | None = None) -> dict[str, list[SkyJob]]:
        return {MANAGED["name"]: [self._job]}

    def job_log(self, job: int) -> Log:
        assert self._log is not None, "SkyPilot would not answer until the job runs"
        return self._log


@pytest.mark.parametrize(("status", "state"), [("PENDING", "pending"), ("RECOVERING", "recovering")])
def test_no_log_is_asked_for_while_there_are_no_machines(status: str, state: str) -> None:
    """The look that did was killed after five minutes, and until then nobody could cancel the run."""
    assert SkyTarget(OneJob(status, state)).logs(MANAGED, "3:0123abcd") == ([], "3:0123abcd")


@pytest.mark.parametrize("log", [Log([]), Log(FIRST[:3])], ids=["not there yet", "cut off"])
def test_a_run_has_not_ended_before_its_log(log: Log) -> None:
    with pytest.raises(Unavailable, match="the end of the log"):
        SkyTarget(OneJob("SUCCEEDED", "finished", time.time() - 20, log)).logs(MANAGED, "")
    lines, _ = SkyTarget(OneJob("SUCCEEDED", "finished", time.time() - 20, Log(FIRST, ended=True))).logs(MANAGED, "")
    assert len(lines) == len(FIRST)


def test_a_log_that_never_comes_is_not_waited_for_for_ever() -> None:
    assert SkyTarget(OneJob("SUCCEEDED", "finished", time.time() - LATE_S, Log([]))).logs(MANAGED, "") == ([], "")
