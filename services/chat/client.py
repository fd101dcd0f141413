"""The client of the CLI and of scripts: submit, follow until the end, cancel. It needs Redis and nothing else."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from services.chat.answer import Outage
from services.chat.feed import AnswerFeed
from services.chat.reader import ReaderEvent, WaitingState
from services.chat.requests import Requests
from services.errors import Unavailable
from services.wire.messages import ChatRequest

OUTAGE_GRACE_S = 120.0
LOOK_S = 0.5  # at how long an outage lasts


class ChatClient(Requests):
    """Front-end access to one installation, one answer at a time."""

    def follow(
        self,
        rid: str,
        user: str,
        *,
        request: ChatRequest | None = None,
        on_outage: Callable[[str], None] = lambda text: None,
        waiting_for: Callable[[str], WaitingState] = lambda model: "queued",
    ) -> Iterator[ReaderEvent]:
        """The answer, until Done. Raises Forbidden, or Unavailable after a long outage of Redis."""
        feed = AnswerFeed(self, self._redis, spawn=_thread, waiting_for=waiting_for)
        changed = threading.Event()
        follower = feed.follow(rid, user, changed.set, request=request)
        feed.start()
        try:
            was_out = False
            while not follower.done:
                changed.wait(LOOK_S)
                changed.clear()
                while (event := follower.next()) is not None:
                    yield event
                if not follower.done:
                    was_out = _is_out(follower.outage, None if was_out else on_outage)
        finally:
            feed.stop()
            feed.leave(follower)


def _is_out(outage: Outage | None, tell: Callable[[str], None] | None) -> bool:
    """Whether Redis is away. Raises Unavailable when that has been so for long."""
    if outage is None:
        return False
    if tell is not None:
        tell(f"Redis does not answer ({outage.reason}); retrying")
    if time.monotonic() - outage.since > OUTAGE_GRACE_S:
        raise Unavailable(f"Redis has not answered for {OUTAGE_GRACE_S:.0f} s: {outage.reason}")
    return True


def _thread(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, name="feed", daemon=True).start()
