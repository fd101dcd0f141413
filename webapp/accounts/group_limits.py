"""Copies what groups allow their members from the database to Redis, where whoever queues a request reads it.

Every web process does so every few seconds: the database is the truth, and a Redis that lost the copy gets it again.
"""

import logging
import threading

from services.accounts.groups import Groups
from services.chat.quotas import Quotas
from services.connection.connect import translated
from services.errors import Unavailable
from webapp.server.threads import in_thread

log = logging.getLogger("chatserver.web")

EVERY_S = 2.0


class GroupLimits:
    """The copy for one installation."""

    def __init__(self, groups: Groups, quotas: Quotas) -> None:
        self._groups = groups
        self._quotas = quotas

    def copy(self) -> None:
        """Raises Unavailable."""
        of_members = in_thread(self._groups.limits_of_members)
        with translated():
            self._quotas.share_groups(of_members)

    def serve(self, stopping: threading.Event) -> None:
        """Until `stopping` is set. What cannot be reached is said once, and tried again."""
        complaint = ""
        while not stopping.is_set():
            try:
                self.copy()
                found = ""
            except Unavailable as error:
                found = f"changed groups do not hold yet: {error}"
            if found and found != complaint:
                log.warning("%s", found)
            complaint = found
            stopping.wait(EVERY_S)
