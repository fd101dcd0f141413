"""The fault suite runs when it is asked for, `pytest tests/faults`, and ends with one table of what it did.

make test does not run it: it kills processes for minutes. FAULT_SEEDS=1-5 and FAULT_SECONDS=60 size the chaos.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.faults.scenario import Scenario
from tests.faults.system import FaultSystem

HERE = Path(__file__).parent


class Outcome(Protocol):
    """Adds a row to the table: how often a fault was injected, how many requests saw it, what came of it."""

    def __call__(self, fault: str, *, times: int = 1, requests: int = 0, result: str = "as promised") -> None: ...


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True (ignore) unless an argument of the command line lies in this folder."""
    named = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path == HERE or HERE in path.parents for path in named) else True


@pytest.fixture
def scenario(system: FaultSystem) -> Iterator[Scenario]:
    """Over the module's `system`, which is healthy again afterwards."""
    made = Scenario(system)
    yield made
    made.heal()


@pytest.fixture
def outcome(record_property: Callable[[str, object], None]) -> Outcome:
    """Rows travel with the test's report, so they also arrive from the processes of pytest-xdist."""

    def record(fault: str, *, times: int = 1, requests: int = 0, result: str = "as promised") -> None:
        record_property("outcome", [fault, times, requests, result])

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of faults and outcomes over all tests."""
    times: Counter[tuple[str, str]] = Counter()
    requests: Counter[tuple[str, str]] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", []) if getattr(report, "when", "") == "call" else []:
                if name == "outcome":
                    fault, count, seen_by, result = value
                    times[fault, result] += count
                    requests[fault, result] += seen_by
    if times:
        terminalreporter.section("faults and outcomes")
        terminalreporter.write_line(f"{'fault':<32} {'injected':>8} {'requests':>8}  outcome")
        for fault, result in sorted(times):
            key = (fault, result)
            terminalreporter.write_line(f"{fault:<32} {times[key]:>8} {requests[key]:>8}  {result}")
