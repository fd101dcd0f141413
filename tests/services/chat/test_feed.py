"""The feed over a real server: one subscription for all, an end for strangers, nothing left behind."""

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import redis

from services.chat.feed import AnswerFeed
from services.chat.follower import Follower
from services.chat.reader import Done, Rewind, Status, Text
from services.chat.requests import Requests
from services.connection.cluster import owner_of
from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer
from services.errors import Forbidden
from services.serving.overview import waiting_for
from services.serving.registry import Registry, WorkerInfo
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from tests.services.chat.conftest import running_feed
from tests.stand_ins.owner import Owner


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


class Client:
    """Takes what its follower tells whenever that changes."""

    def __init__(self, feed: AnswerFeed, rid: str, user: str = "ann", **cursor: object) -> None:
        self.text = "x" * int(cursor.get("offset", 0))  # type: ignore[call-overload]
        self.rewinds: list[int] = []
        self.done: list[Done] = []
        self.follower: Follower = feed.follow(rid, user, lambda: None, **cursor)  # type: ignore[arg-type]

    def take(self) -> "Client":
        while (event := self.follower.next()) is not None:
            if isinstance(event, Text):
                assert event.offset == len(self.text), "a gap or a repeat"
                self.text += event.text
            elif isinstance(event, Rewind):
                self.rewinds.append(event.offset)
                self.text = self.text[: event.offset]
            elif isinstance(event, Done):
                self.done.append(event)
        return self


def test_a_channel_is_heard_until_its_last_follower_leaves(
    feed: AnswerFeed, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    first, second = Client(feed, "r1"), Client(feed, "r1")
    owner.begin("a")
    owner.say("hello")
    eventually(lambda: first.take().text == second.take().text == "hello")
    feed.leave(first.follower)
    owner.say(" there")
    eventually(lambda: second.take().text == "hello there")
    assert first.take().text == "hello"
    feed.leave(second.follower)
    home = owner_of(redis_client, keys.events("r1"))
    eventually(lambda: not home.pubsub_shardchannels(keys.events("r1")), "the end of the subscription")


def test_a_channel_asked_for_after_its_reader_left_is_given_back(
    feed: AnswerFeed, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    """A reader left while its lost subscription was being made again: the channel stayed for ever."""
    Owner(redis_client, keys, "r1")
    follower = feed.follow("r1", "ann", lambda: None)
    server = owner_of(redis_client, keys.events("r1"))
    channel = keys.events("r1").encode()
    eventually(lambda: channel in server.pubsub_shardchannels())
    left = feed._channels[keys.events("r1")]
    feed.leave(follower)
    eventually(lambda: channel not in server.pubsub_shardchannels())
    assert feed._subscribe(left)
    eventually(lambda: channel not in server.pubsub_shardchannels())


def test_a_cursor_that_a_lagging_process_does_not_know_yet_is_not_rewound(
    feed: AnswerFeed, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    """A second tab came from another web process, which had shown more; here the live events were lost."""
    owner = Owner(redis_client, keys, "r1")
    owner.begin("a")
    first = Client(feed, "r1")
    home = owner_of(redis_client, keys.events("r1"))
    eventually(lambda: home.pubsub_shardchannels(keys.events("r1")), "the subscription")
    owner.say("abc")
    eventually(lambda: first.take().text == "abc")
    feed._subscriptions[home].remove(keys.events("r1"))
    eventually(lambda: not home.pubsub_shardchannels(keys.events("r1")), "deafness")
    owner.say("def")
    owner.begin("b")
    owner.say("ghi")
    second = Client(feed, "r1", offset=8, nonce="b")
    eventually(lambda: second.take().text == "x" * 8 + "i")
    assert second.rewinds == [] and first.take().text == "abcdefghi"


def test_only_the_owner_follows(feed: AnswerFeed, redis_client: redis.Redis, keys: Keys) -> None:
    Owner(redis_client, keys, "r1")
    for _ in range(2):
        with pytest.raises(Forbidden, match="r1"):
            feed.follow("r1", "bob", lambda: None)
        feed.follow("r1", "ann", lambda: None)


def test_who_followed_an_id_before_its_owner_used_it_is_sent_away(
    feed: AnswerFeed, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    stranger = Client(feed, "r1", "bob")
    with pytest.raises(Forbidden, match="r1"):
        feed.follow("r1", "ann", lambda: None)
    owner = Owner(redis_client, keys, "r1")
    client = Client(feed, "r1", request=owner.request)
    owner.begin("a")
    owner.say("secret")
    eventually(lambda: client.take().text == "secret")
    assert [done.code for done in stranger.take().done] == ["forbidden"] and stranger.text == ""


def test_an_outage_is_seen_by_followers_and_passes(
    feed: AnswerFeed, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    owner.begin("a")
    followers: list[Follower] = []
    outages: list[object] = []
    follower = feed.follow("r1", "ann", lambda: outages.extend(each.outage for each in followers))
    followers.append(follower)
    home = owner_of(redis_client, keys.events("r1"))
    eventually(lambda: home.pubsub_shardchannels(keys.events("r1")), "the subscription")
    home.client_kill_filter(_type="pubsub")
    eventually(lambda: any(outages), "the outage")
    owner.say("on")
    eventually(lambda: follower.text == "on" and follower.outage is None, "the end of the outage")


def test_an_answer_that_cannot_be_followed_ends_with_an_error(
    feed: AnswerFeed,
    redis_client: redis.Redis,
    keys: Keys,
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception that is no error of Redis was tried again for ever, and nobody was told."""
    Owner(redis_client, keys, "r1").begin("a")
    monkeypatch.setattr("services.chat.answer.Answer.poll", lambda self, now: 1 // 0)
    client = Client(feed, "r1")
    eventually(lambda: [done.code for done in client.take().done] == ["internal"])


def test_who_waits_is_told_for_what(
    redis_client: redis.Redis, keys: Keys, namespace: str, eventually: Callable[..., None], spawn: Callable[..., None]
) -> None:
    """ "You are next", it said, though nobody served the model."""
    requests = Requests(redis_client, keys)
    feed = AnswerFeed(requests, redis_client, spawn=spawn, waiting_for=partial(waiting_for, redis_client, keys))
    feed.start()
    registry = Registry(redis_client, keys)
    redis_client.sadd(keys.models, "m")
    request = ChatRequest("r1", "ann", "m", (Message("user", "hi"),))
    requests.submit(request)
    follower = feed.follow("r1", "ann", lambda: None, request=request)
    eventually(lambda: follower.status == Status("no_worker", 0), "no worker", 5)
    registry.announce_loading("m")
    eventually(lambda: follower.status == Status("loading", 0), "a worker loads", 5)
    registry.announce(WorkerInfo("w1", "m", "none", 4, 0, 0.0, 100, "host", 1, 0.0))
    eventually(lambda: follower.status == Status("queued", 0), "its turn", 5)
    feed.stop()


def test_a_redis_that_is_away_is_logged_once(
    redis_binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    """A web process wrote the same warning four times a second, as long as Redis was away."""
    caplog.set_level(logging.DEBUG, "chatserver.feed")

    def lines(words: str) -> int:
        return sum(words in record.getMessage() for record in caplog.records)

    with (
        EmbeddedServer(tmp_path, binary=redis_binary) as server,
        contextlib.closing(connect(server.url, role="test")) as client,
    ):
        keys = Keys("away")
        owner = Owner(client, keys, "r1")
        with running_feed(client, keys) as feed:
            reader = Client(feed, "r1")
            owner.begin("a")
            owner.say("hello")
            eventually(lambda: reader.take().text == "hello")
            server.kill()
            eventually(lambda: lines("no answer from Redis") >= 5, "five attempts")
            assert lines("the subscription was lost") == 1
            server.start()
            eventually(lambda: lines("subscribed again") == 1, "the line that it is back")
            owner.say(" again")
            eventually(lambda: reader.take().text == "hello again")
            feed.leave(reader.follower)
        assert lines("the subscription was lost") == 1
