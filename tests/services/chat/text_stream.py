"""A driver for a new front end, in as few lines as it takes: an answer as server-sent events. Its tests use it."""

import json
import threading
from collections.abc import Iterator

from services.chat.feed import AnswerFeed
from services.chat.reader import ReaderEvent, Rewind, Status, Text


def frames(
    feed: AnswerFeed, rid: str, user: str, *, offset: int = 0, nonce: str = "", keep_alive_s: float
) -> Iterator[str]:
    """Pieces of text, rewinds, the end; and a comment at every change of the place in line, or in silence."""
    changed = threading.Event()
    follower = feed.follow(rid, user, changed.set, offset=offset, nonce=nonce)
    try:
        while not follower.done:
            if not changed.wait(keep_alive_s):
                yield comment(follower.status)
            changed.clear()
            while (event := follower.next()) is not None:
                yield frame(event)
    finally:
        feed.leave(follower)


def frame(event: ReaderEvent) -> str:
    if isinstance(event, Status):
        return comment(event)
    if isinstance(event, Text):
        return f"data: {json.dumps(event.text)}\n\n"
    name = "rewind" if isinstance(event, Rewind) else event.status
    return f"event: {name}\ndata: {event.offset}\n\n"


def comment(status: Status | None) -> str:
    if status is None or status.position is None:
        return f": {status.state if status else 'waiting'}\n\n"
    return f": queued, {status.position} ahead\n\n"
