"""Whether the environment is as it should be. The other checks go on with what of it is right."""

from collections.abc import Iterator, Sequence

from services.doctor.findings import Finding, ok, wrong
from services.errors import ConfigurationError
from services.settings import Settings, variable_of


def check_settings(settings: Settings, errors: Sequence[ConfigurationError], *, chosen: bool) -> Iterator[Finding]:
    """`errors` are those of the variables that were left out of `settings`; `chosen`: REDIS_URL was set, not found."""
    for error in errors:
        yield wrong(error.message, "every command stops at this; the checks below go on without that variable")
    if not errors:
        given = ", ".join(
            sorted(variable_of(name) for name in settings.model_fields_set if chosen or name != "redis_url")
        )
        yield ok(f"set: {given}" if given else "all at their defaults")
