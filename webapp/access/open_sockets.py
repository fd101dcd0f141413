"""Closes the sockets of sessions that have ended: a stream of an answer must not outlive the right to read it.

`webapp/chat/sockets.py` reports its sockets. Each event of a socket asks for its session too (`visitors.py`); this is
for sockets that only listen. Where nobody signs in, there is nothing to look at.
"""

import logging
from collections.abc import Callable, Collection

import gevent
from flask import session

from services.accounts.accounts import Accounts
from services.accounts.sessions import digest_of
from services.errors import Unavailable
from webapp.access.visitors import SECRET
from webapp.server.threads import in_thread

log = logging.getLogger("chatserver.web")

LOOK_S = 3.0


class OpenSockets:
    """The sockets of this process. `close(sid)` ends one; its client hears why when it comes back."""

    def __init__(self, accounts: Accounts | None, close: Callable[[str], object]) -> None:
        self._accounts = accounts
        self._close = close
        self._digests: dict[str, str] = {}  # socket → session
        self._looks = False

    def add(self, sid: str) -> None:
        """Called within the socket's request, which has its cookie."""
        if self._accounts is None:
            return
        self._digests[sid] = digest_of(str(session.get(SECRET, "")))
        if not self._looks:
            self._looks = True
            gevent.spawn(self._look, self._accounts)

    def remove(self, sid: str) -> None:
        self._digests.pop(sid, None)

    def close_soon(self, sid: str) -> None:
        """After what is answered now."""
        gevent.spawn(self._close, sid)

    def _look(self, accounts: Accounts) -> None:
        """One greenlet while there are sockets."""
        while self._digests:
            gevent.sleep(LOOK_S)
            try:
                holding = in_thread(accounts.sessions.holding, set(self._digests.values()))
            except Unavailable as error:  # nobody is signed out because the database is away
                log.warning("sessions cannot be looked at: %s", error)
                continue
            self._close_others(holding)
        self._looks = False

    def _close_others(self, holding: Collection[str]) -> None:
        for sid, digest in list(self._digests.items()):
            if digest not in holding:
                log.info("a session has ended; its socket is closed", extra={"sid": sid})
                self.remove(sid)
                self._close(sid)
