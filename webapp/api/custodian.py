"""Looks after answers that go on without a reader: whatever Redis lost of one is repaired, as a reader would do.

The process that accepted a response in the background looks after it, and so does each that was asked for it since.
"""

from services.chat.feed import AnswerFeed
from services.chat.follower import Follower
from services.wire.messages import ChatRequest


class Custodian:
    """`watch` may be called from any greenlet."""

    def __init__(self, feed: AnswerFeed) -> None:
        self._feed = feed
        self._followers: dict[str, Follower | None] = {}  # None while `follow` has not returned

    def watch(self, rid: str, user: str, request: ChatRequest | None = None, note: bytes = b"") -> None:
        """Look after an answer until its end. `request` is the caller's own, just accepted with its note."""
        if rid in self._followers:
            return
        self._followers[rid] = None
        try:
            follower = self._feed.follow(rid, user, lambda: self._leave_ended(rid), request=request, note=note)
        except BaseException:
            del self._followers[rid]
            raise
        self._followers[rid] = follower
        self._leave_ended(rid)

    def _leave_ended(self, rid: str) -> None:
        follower = self._followers.get(rid)
        if follower is not None and follower.has_end:
            del self._followers[rid]
            self._feed.leave(follower)
