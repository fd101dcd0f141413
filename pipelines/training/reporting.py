"""What the training program says: lines for people and event lines for machines, from the first process only.

Also the two ways in which a training ends other than finished: `Aborted` and `Stopped`. Used by every module of the
program.
"""

import os
from typing import Any

from services.training import event_line


class Aborted(Exception):
    """To go on would produce a broken model. The message names what was found and the remedy."""


class Stopped(Exception):
    """SIGTERM came and everything is saved: started again, it goes on."""


class Reporter:
    """Prints for the whole run; silent in all processes but the first."""

    def __init__(self, rank: int) -> None:
        self._speaks = rank == 0

    @classmethod
    def of_this_process(cls) -> "Reporter":
        """By the rank that a launcher gave, before there is a process group to ask."""
        return cls(int(os.environ.get("RANK", "0")))

    def say(self, line: str) -> None:
        if self._speaks:
            print(line, flush=True)

    def event(self, event: str, **fields: Any) -> None:
        if self._speaks:
            print(event_line(event, **fields), flush=True)
