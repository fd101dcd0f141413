"""However a check ends, the others are told."""

import threading
import time
from collections.abc import Iterator

from services.doctor.findings import Check, Finding, ok, run


def test_a_check_that_raises_is_a_finding_that_names_it() -> None:
    def broken() -> Iterator[Finding]:
        yield ok("so far")
        raise KeyError("redis_version")

    found = run([Check("first", broken), Check("second", lambda: [ok("fine")])])
    assert [(each.subject, each.level) for each in found] == [("first", "ok"), ("first", "wrong"), ("second", "ok")]
    assert "KeyError: 'redis_version'" in found[1].message


def test_a_check_that_hangs_is_a_finding_too_and_keeps_nobody_waiting() -> None:
    leave = threading.Event()

    def hanging() -> Iterator[Finding]:
        leave.wait(60)
        yield ok("too late")

    began = time.monotonic()
    found = run([Check("first", hanging, limit_s=0.2), Check("second", lambda: [ok("fine")])])
    leave.set()
    assert time.monotonic() - began < 10
    assert [(each.subject, each.level) for each in found] == [("first", "wrong"), ("second", "ok")]
    assert "did not end within 0.2 s" in found[0].message


def test_checks_run_side_by_side() -> None:
    both = threading.Barrier(2)

    def meet() -> list[Finding]:
        both.wait(10)
        return [ok("met")]

    assert [each.level for each in run([Check("a", meet), Check("b", meet)])] == ["ok", "ok"]
