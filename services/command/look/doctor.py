"""`chatserver doctor`: prints the findings of `services/doctor` about this installation, and the remedies."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from services.doctor.findings import Finding

MARKS = {"ok": "ok", "note": "note", "warning": "warning", "wrong": "WRONG"}
COLOURS = {"ok": "32", "note": "2", "warning": "33", "wrong": "31;1"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    cloud: Annotated[
        bool,
        typer.Option(
            "--cloud", help="Also ask the clouds: `sky check`, which may install SkyPilot and start its server."
        ),
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address of the web app.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the web app; default: that of the `chatserver up` that runs here.")
    ] = None,
) -> None:
    """Check this installation and say what to fix. It changes nothing; exit code 0 when nothing is wrong."""
    from services.command.access import beside_running
    from services.command.tables import print_json
    from services.doctor.examination import examine
    from services.settings import load_right_settings

    settings, errors = load_right_settings()
    settings = settings.model_copy(update={n: v for n, v in (("host", host), ("port", port)) if v is not None})
    chosen = "redis_url" in settings.model_fields_set
    findings = examine(beside_running(settings), errors, chosen=chosen, ask_clouds=cloud)
    if as_json:
        found: Sequence[Finding] = list(findings)
        print_json({"ok": not _number("wrong", found), "findings": [asdict(finding) for finding in found]})
    else:
        found = print_findings(findings)
    raise typer.Exit(1 if _number("wrong", found) else 0)


def print_findings(findings: "Iterable[Finding]") -> "Sequence[Finding]":
    """Print each finding as it comes, with its remedy under it, and the sums at the end."""
    found = []
    for finding in findings:
        found.append(finding)
        print(f"{_mark(finding.level)} {finding.subject}: {_shown(finding.message)}", flush=True)
        if finding.remedy:
            print(f"{'':8} → {_shown(finding.remedy)}", flush=True)
    print("\n" + ", ".join(f"{number} {level}" for level in MARKS if (number := _number(level, found))))
    return found


def _mark(level: str) -> str:
    mark = f"{MARKS[level]:<8}"
    return f"\x1b[{COLOURS[level]}m{mark}\x1b[0m" if sys.stdout.isatty() else mark


def _shown(text: str) -> str:
    """The text in one line, without control characters: some of it comes from other machines."""
    return "".join(character if character.isprintable() else " " for character in text)


def _number(level: str, found: "Sequence[Finding]") -> int:
    return sum(finding.level == level for finding in found)
