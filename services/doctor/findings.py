"""Runs checks and collects their findings: each check in a thread, under a name, with a time limit.

    running = begin([Check("disk", lambda: free_space(folder))])
    for finding in collect(running): ...

A check that raises or does not end becomes a finding, so the findings of the others are not lost.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["ok", "note", "warning", "wrong"]

LIMIT_S = 30.0  # of a check that asks something; none of them waits that long by itself


@dataclass(frozen=True)
class Finding:
    """One sentence about one subject. `note`: nothing to do; `warning`: it works, but badly; `wrong`: fix it."""

    level: Level
    message: str
    remedy: str = ""
    subject: str = ""  # set to the check's when it is run


@dataclass(frozen=True)
class Check:
    """One check of one subject."""

    subject: str
    look: Callable[[], Iterable[Finding]]
    limit_s: float = LIMIT_S


@dataclass
class RunningCheck:
    """A check in its thread. `found` is complete when the thread has ended."""

    check: Check
    thread: threading.Thread
    deadline: float
    found: list[Finding]


def ok(message: str) -> Finding:
    return Finding("ok", message)


def note(message: str, remedy: str = "") -> Finding:
    return Finding("note", message, remedy)


def warning(message: str, remedy: str) -> Finding:
    return Finding("warning", message, remedy)


def wrong(message: str, remedy: str) -> Finding:
    return Finding("wrong", message, remedy)


def begin(checks: Sequence[Check]) -> list[RunningCheck]:
    """Start all checks side by side."""
    return [_start(check) for check in checks]


def collect(running: Sequence[RunningCheck]) -> Iterator[Finding]:
    """The findings in the order of the checks, each as soon as its check and those before it have ended."""
    for one in running:
        one.thread.join(max(one.deadline - time.monotonic(), 0.0))
        found = list(one.found)  # one that is late goes on adding to its own
        if one.thread.is_alive():
            found.append(_unended(one.check))
        yield from (replace(finding, subject=finding.subject or one.check.subject) for finding in found)


def run(checks: Sequence[Check]) -> list[Finding]:
    return list(collect(begin(checks)))


def _start(check: Check) -> RunningCheck:
    found: list[Finding] = []
    # A daemon: what hangs must not keep the command from ending.
    thread = threading.Thread(target=_look, args=(check, found), name=f"doctor-{check.subject}", daemon=True)
    thread.start()
    return RunningCheck(check, thread, time.monotonic() + check.limit_s, found)


def _look(check: Check, found: list[Finding]) -> None:
    try:
        for finding in check.look():
            found.append(finding)
    except Exception as error:  # noqa: BLE001  # whatever it is: it is said, and the other checks go on
        found.append(
            wrong(
                f"the check itself failed with {type(error).__name__}: {_one_line(error)}",
                "if Redis or the system refuses something, correct that; else the doctor has a bug",
            )
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or "no message"


def _unended(check: Check) -> Finding:
    return wrong(
        f"the check did not end within {check.limit_s:g} s", "the system that it asks hangs; check that by hand"
    )
