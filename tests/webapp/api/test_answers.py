"""What leaving costs: readers who all go at once must not take every connection to Redis."""

import threading
import time
from types import SimpleNamespace
from typing import Any

from services.wire.messages import ChatRequest, Message
from webapp.api.answers import Answers


class SlowRequests:
    """Counts the cancels that run at the same time."""

    def __init__(self) -> None:
        self.running = self.most = self.cancelled = 0
        self._counting = threading.Lock()

    def submit(self, order: ChatRequest, address: str) -> None:
        """Every order is accepted."""

    def cancel(self, rid: str, user: str) -> None:
        with self._counting:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.01)
        with self._counting:
            self.running -= 1
            self.cancelled += 1


class Feed:
    """Follows nothing."""

    def follow(self, rid: str, user: str, changed: Any, **_: Any) -> Any:
        return SimpleNamespace(rid=rid, done=False, has_end=False)

    def leave(self, follower: Any) -> None:
        """Nothing is held."""


def test_a_crowd_that_leaves_cancels_a_few_at_a_time() -> None:
    """A thousand readers took all connections of the pool, and who submitted was told that Redis does not answer."""
    requests: Any = SlowRequests()
    feed: Any = Feed()
    orders = [ChatRequest(f"r{n}", "ann", "m", (Message("user", "hi"),)) for n in range(60)]
    crowd = [Answers(feed, requests, [o], address="", interval_s=0, outlives_reader=False) for o in orders]
    leaving = [threading.Thread(target=answers.close) for answers in crowd]
    for each in leaving:
        each.start()
    for each in leaving:
        each.join()
    assert requests.cancelled == 60 and 1 < requests.most <= 8
