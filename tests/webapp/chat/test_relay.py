"""The relay over a real server: slices by offset, a window per client, and nothing that one answer does to others."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from services.chat.feed import AnswerFeed
from services.chat.requests import Requests
from services.connection.cluster import owner_of
from services.connection.connect import connect
from services.errors import Forbidden
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from tests.servers import ClusterOfServers
from tests.stand_ins.owner import Owner
from webapp.chat.relay import Relay

WINDOW = 100


class Sent:
    """What sockets were sent, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.full: set[str] = set()  # sockets that take nothing after the next event

    def __call__(self, sid: str, event: str, payload: dict[str, Any]) -> bool:
        self.events.append((sid, event, payload))
        return sid not in self.full

    def of(self, sid: str, event: str) -> list[dict[str, Any]]:
        return [payload for who, what, payload in self.events if (who, what) == (sid, event)]

    def text(self, sid: str) -> str:
        """The text as a client that keeps the rules has it."""
        text = ""
        for who, what, payload in self.events:
            if who == sid and what == "tokens":
                assert payload["offset"] == len(text), "a gap or a repeat"
                text += payload["text"]
            elif who == sid and what == "rewind":
                text = text[: payload["offset"]]
        return text


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@contextlib.contextmanager
def running(client: redis.Redis, keys: Keys, sent: Sent) -> Iterator[Relay]:
    threads: list[threading.Thread] = []

    def spawn(target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        threads.append(thread)
        thread.start()

    feed = AnswerFeed(Requests(client, keys), client, spawn=spawn)
    made = Relay(feed, sent, interval_s=0.01, window_chars=WINDOW, spawn=spawn)
    feed.start()
    made.start()
    yield made
    made.stop()
    feed.stop()
    for thread in threads:
        thread.join(5)


@pytest.fixture
def relay(redis_client: redis.Redis, keys: Keys, sent: Sent) -> Iterator[Relay]:
    with running(redis_client, keys, sent) as made:
        yield made


def test_two_sockets_get_the_same_answer_once_each(
    relay: Relay, sent: Sent, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    relay.watch("tab1", "r1", "ann")
    owner.begin("a")
    owner.say("hel")
    eventually(lambda: sent.text("tab1") == "hel")
    relay.watch("tab2", "r1", "ann")
    owner.say("lo 𝄞")
    owner.finish()
    eventually(lambda: sent.of("tab1", "done") and sent.of("tab2", "done"))
    assert sent.text("tab1") == sent.text("tab2") == "hello 𝄞"
    assert [done["offset"] for done in sent.of("tab1", "done")] == [7]


def test_a_client_gets_a_window_and_goes_on_when_it_acknowledges(
    relay: Relay, sent: Sent, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    owner.begin("a")
    owner.say("x" * 250)
    owner.finish()
    relay.watch("slow", "r1", "ann")
    eventually(lambda: len(sent.text("slow")) == WINDOW)
    assert not sent.of("slow", "done")
    relay.received("slow", "r1", 10_000_000)  # more than it was sent: counts as what it was sent
    eventually(lambda: len(sent.text("slow")) == 2 * WINDOW)
    relay.received("slow", "r1", 2 * WINDOW)
    eventually(lambda: sent.of("slow", "done"))
    assert sent.text("slow") == "x" * 250


def test_a_socket_that_is_full_is_sent_nothing_until_it_has_drained(
    relay: Relay, sent: Sent, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    """What a client did not read was queued for it all the same, a window for each answer that it watched."""
    owner = Owner(redis_client, keys, "r1")
    owner.begin("a")
    sent.full.add("slow")
    relay.watch("slow", "r1", "ann")
    relay.watch("quick", "r1", "ann")
    for number in range(1, 6):
        owner.say("ten chars.")
        eventually(lambda number=number: len(sent.text("quick")) == 10 * number)
    owner.finish()
    eventually(lambda: sent.of("quick", "done"))
    assert len([event for event in sent.events if event[0] == "slow"]) == 1
    sent.full.clear()
    relay.drained("slow")
    eventually(lambda: sent.of("slow", "done"))
    assert sent.text("slow") == sent.text("quick") == "ten chars." * 5
    assert len(sent.of("slow", "tokens")) <= 2, "what came meanwhile is one slice"


def test_an_event_that_cannot_be_read_ends_its_own_answer_only(
    relay: Relay, sent: Sent, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    """One message of another version ended the listening for every user of the process."""
    odd, fine = Owner(redis_client, keys, "odd"), Owner(redis_client, keys, "fine")
    for owner in (odd, fine):
        owner.begin("a")
        relay.watch("tab", owner.rid, "ann")
        eventually(lambda owner=owner: any(e["id"] == owner.rid for e in sent.of("tab", "status")))
    redis_client.xadd(keys.journal("odd"), {"k": "tokens", "e": '{"v":2}'}, id="1-5")
    redis_client.execute_command("SPUBLISH", keys.events("odd"), '{"v":2}')
    eventually(lambda: [done["code"] for done in sent.of("tab", "done")] == ["protocol"])
    fine.say("hello")
    eventually(lambda: any(e["id"] == "fine" and e["text"] == "hello" for e in sent.of("tab", "tokens")), timeout_s=1)


def test_a_cursor_that_the_journal_lost_is_rewound(
    relay: Relay, sent: Sent, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    owner.begin("a")
    owner.say("abc")
    relay.watch("tab", "r1", "ann", offset=9, nonce="a")
    eventually(lambda: sent.of("tab", "rewind"))
    assert sent.of("tab", "rewind")[0]["offset"] == 3
    owner.finish()
    eventually(lambda: sent.of("tab", "done"))
    assert sent.of("tab", "tokens") == []


def test_only_the_owner_watches(relay: Relay, redis_client: redis.Redis, keys: Keys) -> None:
    Owner(redis_client, keys, "r1")
    with pytest.raises(Forbidden, match="r1"):
        relay.watch("tab", "r1", "bob")
    relay.watch("tab", "r1", "ann")
    with pytest.raises(Forbidden, match="r1"):
        relay.watch("tab2", "r1", "bob")


def test_a_socket_that_left_is_sent_nothing_and_watched_nothing(
    relay: Relay, sent: Sent, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    relay.watch("tab", "r1", "ann")
    owner.begin("a")
    eventually(lambda: sent.of("tab", "status"))
    relay.forget("tab")
    owner.say("secret")
    eventually(
        lambda: not owner_of(redis_client, keys.events("r1")).pubsub_shardchannels(keys.events("r1")),
        "the end of the subscription",
    )
    assert sent.of("tab", "tokens") == []


def test_a_lost_subscription_is_made_again(
    relay: Relay, sent: Sent, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    owner = Owner(redis_client, keys, "r1")
    owner.begin("a")
    relay.watch("tab", "r1", "ann")
    home = owner_of(redis_client, keys.events("r1"))
    eventually(lambda: home.pubsub_shardchannels(keys.events("r1")), "the subscription")
    home.client_kill_filter(_type="pubsub")
    owner.say("missed by the channel")
    eventually(lambda: sent.text("tab") == "missed by the channel", "the journal's text", 1.5)
    owner.say(", heard")
    owner.finish()
    eventually(lambda: sent.of("tab", "done"), "the end", 1)


def test_an_answer_whose_slot_moves_arrives_whole(
    redis_cluster: ClusterOfServers, sent: Sent, keys: Keys, eventually: Callable[..., None]
) -> None:
    channel = keys.events("r1")
    home = redis_cluster.owner(channel)
    away = next(node for node in redis_cluster.primaries if node is not home)
    with (
        contextlib.closing(connect(redis_cluster.url, role="test")) as client,
        running(client, keys, sent) as relay,
    ):
        owner = Owner(client, keys, "r1")
        relay.watch("tab", "r1", "ann")
        owner.begin("a")
        owner.say("hel")
        eventually(lambda: sent.text("tab") == "hel")
        redis_cluster.move_slot(channel, home, away)
        owner.say("lo")
        eventually(lambda: away.client.pubsub_shardchannels(channel), "a subscription at the new home")
        eventually(lambda: sent.text("tab") == "hello")
        owner.say(" there")
        owner.finish()
        eventually(lambda: sent.of("tab", "done"), "the end, live", 1)
        redis_cluster.move_slot(channel, away, home)
    assert sent.text("tab") == "hello there"


def test_a_waiting_request_is_told_its_position(
    relay: Relay, sent: Sent, redis_client: redis.Redis, keys: Keys, eventually: Callable[..., None]
) -> None:
    redis_client.sadd(keys.models, "m")
    requests = Requests(redis_client, keys)
    for rid in ("r1", "r2", "r3"):
        requests.submit(ChatRequest(rid, "ann", "m", (Message("user", "hi"),)))
    relay.watch("tab", "r3", "ann")
    eventually(lambda: sent.of("tab", "status"))
    assert sent.of("tab", "status")[0] == {"id": "r3", "state": "queued", "position": 2}
    requests.cancel("r3", "ann")
    eventually(lambda: sent.of("tab", "done"))
