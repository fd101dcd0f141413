"""The disk on which Redis keeps its data, where that is known: of the embedded server alone.

The front ends ask before they accept a request, and name the disk when Redis does not answer.
"""

from pathlib import Path
from typing import Self

from services.connection.embedded import folder_behind
from services.errors import ChatServerError, Unavailable
from services.machine.disk import fullness

RETRY_AFTER_S = 5.0
REMEDY = "make room there; everything goes on by itself"


class RedisDisk:
    """`folder` is None where another Redis is used: then nothing is known, and nothing refused."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @classmethod
    def of(cls, redis_url: str, state_dir: Path) -> Self:
        return cls(folder_behind(redis_url, state_dir))

    def check(self) -> None:
        """Raise Unavailable when the disk has no room for anything new."""
        if full := self._full():
            raise Unavailable(full, remedy=REMEDY, retry_after_s=RETRY_AFTER_S)

    def explained(self, error: ChatServerError) -> ChatServerError:
        """The same error; with a full disk as its cause where Redis is unavailable and the disk is full."""
        if not isinstance(error, Unavailable) or error.remedy == REMEDY or not (full := self._full()):
            return error
        return Unavailable(f"{full} ({error.message})", remedy=REMEDY, retry_after_s=RETRY_AFTER_S)

    def _full(self) -> str:
        return fullness(self._folder) if self._folder else ""
