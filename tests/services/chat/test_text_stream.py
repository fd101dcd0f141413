"""A new front end is a driver of a few lines: whatever happens below, its reader gets the answer, a place, an end."""

import json
import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from services.chat.feed import AnswerFeed
from services.chat.requests import Requests
from services.connection.cluster import owner_of
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from tests.services.chat.text_stream import frames
from tests.stand_ins.owner import Owner


class Browser:
    """Reads frames in a thread of its own, as a server's thread would write them."""

    def __init__(self, stream: Iterator[str], text: str = "") -> None:
        self.text = text
        self.frames: list[str] = []
        self.thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self.thread.start()

    def _read(self, stream: Iterator[str]) -> None:
        for frame in stream:
            if frame.startswith("data: "):
                self.text += json.loads(frame.removeprefix("data: "))
            elif frame.startswith("event: rewind"):
                self.text = self.text[: int(frame.split("data: ")[1])]
            self.frames.append(frame)

    def saw(self, start: str) -> bool:
        return any(frame.startswith(start) for frame in self.frames)


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


def test_a_stream_says_its_place_until_its_text_comes(
    feed: AnswerFeed, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    redis_client.sadd(keys.models, "m")
    for rid in ("r1", "r2", "r3"):
        Requests(redis_client, keys).submit(ChatRequest(rid, "ann", "m", (Message("user", "hi"),)))
    browser = Browser(frames(feed, "r3", "ann", keep_alive_s=0.02))
    eventually(lambda: browser.frames.count(": queued, 2 ahead\n\n") >= 3, "its place, again and again")
    owner = Owner(redis_client, keys, "r3")
    owner.begin("a")
    owner.say("hello 𝄞")
    owner.finish()
    eventually(lambda: browser.saw("event: finished\ndata: 7"), "the end")
    assert browser.text == "hello 𝄞" and not browser.saw("event: rewind")
    for rid in ("r1", "r2"):
        Requests(redis_client, keys).cancel(rid, "ann")


def test_a_stream_passes_over_a_lost_subscription_and_a_takeover(
    feed: AnswerFeed, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    owner.begin("a")
    browser = Browser(frames(feed, "r1", "ann", keep_alive_s=0.5))
    home = owner_of(redis_client, keys.events("r1"))
    owner.say("one")
    eventually(lambda: browser.text == "one")
    home.client_kill_filter(_type="pubsub")
    owner.say(" two")  # which nobody hears
    owner.begin("b")  # another worker
    owner.say(" three")
    eventually(lambda: browser.text == "one two three", "what the journal says")
    owner.say(" four")
    owner.finish()
    eventually(lambda: browser.saw("event: finished\ndata: 18"), "the end")
    assert browser.text == "one two three four" and not browser.saw("event: rewind")


def test_a_stream_goes_on_from_a_cursor_and_takes_back_what_redis_lost(
    feed: AnswerFeed, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    owner.begin("a")
    owner.say("Once upon")
    browser = Browser(frames(feed, "r1", "ann", offset=4, nonce="a", keep_alive_s=0.5), "Once")
    eventually(lambda: browser.text == "Once upon")
    redis_client.delete(keys.state("r1"), keys.journal("r1"))
    successor = Owner(redis_client, keys, "r1")
    successor.begin("b")
    successor.say("Only")
    successor.finish()
    eventually(lambda: browser.saw("event: finished\ndata: 4"), "the end")
    assert browser.saw("event: rewind\ndata: 2") and browser.text == "Only"
