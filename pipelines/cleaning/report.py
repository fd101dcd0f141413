"""The report of a run as a page: numbers, plots, and records before and after, made from the JSON report.

The page is one file without scripts that opens from disk. `pipelines/cleaning/finish.py` writes it, the web app shows
it in a sandbox.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from pipelines.cleaning.charts import bars, histogram

MAX_REASONS = 24
MAX_LANGUAGES = 16
MAX_SHOWN_CHARS = 3000  # of one turn of a sample
DUPLICATES = ("duplicate", "near_duplicate", "duplicate_id")


def render(report: dict[str, Any]) -> str:
    """The page of a report (`report.json`)."""
    return _template().render(report=report, lengths=_lengths(report), drops=_drops(report), **_charts(report))


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["reasons"] = reasons
    environment.filters["shown"] = shown
    return environment.get_template("report.html")


def reasons(counts: Mapping[str, int]) -> str:
    """`too_short 3, empty 1`, most frequent first."""
    return ", ".join(f"{name} {count:,}" for name, count in Counter(counts).most_common())


def shown(text: str) -> str:
    """A turn of a sample, cut where a reader has seen enough."""
    left = len(text) - MAX_SHOWN_CHARS
    return text if left <= 0 else f"{text[:MAX_SHOWN_CHARS]}… ({left:,} more characters)"


def _drops(report: dict[str, Any]) -> list[tuple[str, int]]:
    """(step and reason, number of records), most frequent first."""
    found = [(f"{step['step']}: {reason}", n) for step in report["steps"] for reason, n in step["rejected"].items()]
    return sorted(found, key=lambda drop: (-drop[1], drop[0]))


def _charts(report: dict[str, Any]) -> dict[str, Any]:
    after = _added(report["after"])
    rejected = [drop for step in report["steps"] for drop in step["rejected"].items()]
    languages = Counter(after["languages"]).most_common(MAX_LANGUAGES)
    return {
        "drops_chart": bars(_drops(report)[:MAX_REASONS], "Records rejected, by step and reason"),
        "duplicates_chart": bars([drop for drop in rejected if drop[0] in DUPLICATES], "Duplicates removed"),
        "languages_chart": bars(languages, "Languages of the records written"),
    }


def _lengths(report: dict[str, Any]) -> list[tuple[str, Any]]:
    """(title, histogram) of each kind of length."""
    before, after = report["before"], _added(report["after"])
    found = [
        ("Turns of a record", before["turns_of_record"], after["turns_of_record"]),
        ("Characters of a record", before["chars_of_record"], after["chars_of_record"]),
        ("Characters of a question", before["chars_of_turn"]["user"], after["chars_of_turn"]["user"]),
        ("Characters of an answer", before["chars_of_turn"]["assistant"], after["chars_of_turn"]["assistant"]),
        ("Tokens of a record", {}, after["tokens_of_record"]),
    ]
    return [(title, histogram(first, second, title)) for title, first, second in found if first or second]


def _added(sets: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics of all splits together."""
    total: dict[str, Any] = {}
    for found in sets.values():
        total = _sum(total, found)
    return total


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) or isinstance(other, Mapping):
        one, other = one or {}, other or {}
        return {key: _sum(one.get(key, 0), other.get(key, 0)) for key in {**one, **other}}
    return one + other
