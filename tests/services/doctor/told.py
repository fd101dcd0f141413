"""What a check found, in short."""

from collections.abc import Iterable

from services.doctor.findings import Finding


def told(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """(level, message) of each."""
    return [(finding.level, finding.message) for finding in findings]


def only(findings: Iterable[Finding]) -> tuple[str, str]:
    """(level, message) of the one finding."""
    (found,) = told(findings)
    return found
