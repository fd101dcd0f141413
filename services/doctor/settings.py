"""Checks the environment. The other checks use its valid variables."""

from collections.abc import Iterator, Sequence

from services.doctor.findings import Finding, ok, wrong
from services.errors import ConfigurationError
from services.settings import Settings, variable_of


def check_settings(settings: Settings, errors: Sequence[ConfigurationError], *, chosen: bool) -> Iterator[Finding]:
    """`errors` belong to the variables that `settings` omits. `chosen`: the user has set REDIS_URL."""
    for error in errors:
        yield wrong(error.message, "every command stops at this error; the checks below ignore the variable")
    if not errors:
        given = ", ".join(
            sorted(variable_of(name) for name in settings.model_fields_set if chosen or name != "redis_url")
        )
        yield ok(f"set: {given}" if given else "all at their defaults")
