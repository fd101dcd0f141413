"""Starts the other programs for the command, as `python -m …`. Options travel as environment variables."""

import os
import sys
from typing import Any, NoReturn

from services.command.access import beside_running
from services.settings import FILES, load_settings, variable_of


def module_command(module: str) -> list[str]:
    """The command line that runs a program of ChatServer with this interpreter."""
    return [sys.executable, "-m", module]


def child_environment(**options: Any) -> dict[str, str]:
    """This environment plus each given option (not None) under its variable's name, in place of a file."""
    chosen = {name: str(value) for name, value in options.items() if value is not None}
    kept = {name: value for name, value in os.environ.items() if FILES.get(name) not in chosen}
    return {**kept, "PYTHONUNBUFFERED": "1", **{variable_of(name): value for name, value in chosen.items()}}


def become(module: str, *arguments: str, check: bool = False, **options: Any) -> NoReturn:
    """Replace this process by a program of ChatServer, or by its health probe.

    Without REDIS_URL the program uses the server of a `chatserver up` over the same state folder, as commands do.
    Raises ConfigurationError before that for a wrong option.
    """
    settings = load_settings(**options)
    if (found := beside_running(settings)) is not settings:
        options["redis_url"] = found.redis_url
    command = [*module_command(module), *arguments, *(["--check"] if check else [])]
    os.execve(command[0], command, child_environment(**options))
