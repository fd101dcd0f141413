"""How the command starts the other programs: `python -m …`, options handed over as environment variables."""

import os
import sys
from typing import Any, NoReturn

from services.settings import FILES, load_settings, variable_of


def module_command(module: str) -> list[str]:
    """The command line that runs one of our programs with this interpreter."""
    return [sys.executable, "-m", module]


def child_environment(**options: Any) -> dict[str, str]:
    """Our environment plus the options that were given (not None), under their variables' names, in place of files."""
    chosen = {name: str(value) for name, value in options.items() if value is not None}
    kept = {name: value for name, value in os.environ.items() if FILES.get(name) not in chosen}
    return {**kept, "PYTHONUNBUFFERED": "1", **{variable_of(name): value for name, value in chosen.items()}}


def become(module: str, *arguments: str, check: bool = False, **options: Any) -> NoReturn:
    """Replace this process by one of our programs, or by its health probe.

    Raises ConfigurationError before that for a wrong option.
    """
    load_settings(**options)
    command = [*module_command(module), *arguments, *(["--check"] if check else [])]
    os.execve(command[0], command, child_environment(**options))
