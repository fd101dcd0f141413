"""Copies what groups allow their members from the database to Redis, where whoever queues a request reads it.

Every web process does so every few seconds: the database is the truth, and a Redis that lost the copy gets it again.
"""

import logging
import threading
import time

from services.accounts.groups import Groups
from services.chat.quotas import Quotas, encode_members
from services.connection.connect import translated
from services.errors import Unavailable
from webapp.server.threads import in_thread

log = logging.getLogger("chatserver.web")

EVERY_S = 2.0
WHOLE_S = 60.0  # how often what did not change is compared with Redis, member by member


class GroupLimits:
    """The copy for one installation."""

    def __init__(self, groups: Groups, quotas: Quotas) -> None:
        self._groups = groups
        self._quotas = quotas
        self._shared: dict[bytes, bytes] | None = None
        self._whole_at = 0.0

    def copy(self) -> None:
        """Does little while nothing changed and Redis has as many members. Raises Unavailable."""
        wanted = in_thread(lambda: encode_members(self._groups.limits_of_members()))
        with translated():
            if self._is_shared(wanted):
                return
            self._quotas.share_encoded_groups(wanted)
        self._shared, self._whole_at = wanted, time.monotonic()

    def _is_shared(self, wanted: dict[bytes, bytes]) -> bool:
        is_recent = time.monotonic() - self._whole_at < WHOLE_S
        return is_recent and wanted == self._shared and self._quotas.num_shared() == len(wanted)

    def serve(self, stopping: threading.Event) -> None:
        """Until `stopping` is set. What cannot be reached is said once, and tried again."""
        complaint = ""
        while not stopping.is_set():
            try:
                self.copy()
                found = ""
            except Unavailable as error:
                found = f"changed groups do not hold yet: {error}"
            except Exception:  # of one copy: the next one may go well
                log.exception("a copy of the groups' limits failed")
                found = "changed groups do not hold yet: a copy of their limits failed"
            if found and found != complaint:
                log.warning("%s", found)
            complaint = found
            stopping.wait(EVERY_S)
