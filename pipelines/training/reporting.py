"""The output of the training program: lines for people and event lines for programs, from the first process only.

Also the errors that end a training early: `Aborted`, `BadData` and `Stopped`. Every module of the program uses it.
"""

import os
import signal
from typing import Any

from services.errors import ConfigurationError
from services.jobs.training import event_line


class Aborted(Exception):
    """Training on would produce a broken model. The message names the cause and the remedy.

    `file`: the name of the data file at fault, where one is.
    """

    def __init__(self, message: str, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class BadData(ConfigurationError):
    """A data file is none: `file` is its name, where one is at fault."""

    def __init__(self, message: str, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class Stopped(Exception):
    """SIGTERM came and everything is saved: started again, the run continues."""


class Reporter:
    """Prints for the whole run; silent in all processes but the first."""

    def __init__(self, rank: int) -> None:
        self.speaks = rank == 0

    @classmethod
    def of_this_process(cls) -> "Reporter":
        """By the rank that a launcher gave, before there is a process group to ask."""
        return cls(int(os.environ.get("RANK", "0")))

    def say(self, line: str) -> None:
        if self.speaks:
            try:
                print(line, flush=True)
            except BrokenPipeError:
                _end_unheard()

    def event(self, event: str, **fields: Any) -> None:
        self.say(event_line(event, **fields))


def _end_unheard() -> None:
    """Who read us is gone, as when a machine is taken away: time to save, and nothing to say."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)
    signal.raise_signal(signal.SIGTERM)
