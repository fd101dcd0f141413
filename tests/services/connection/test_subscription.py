"""Live events: heard where their channel lives, and a loss is noticed."""

import contextlib
import signal
from pathlib import Path

import pytest
import redis

from services.connection import subscription
from services.connection.cluster import owner_of
from services.connection.connect import connect
from services.connection.subscription import Subscription
from services.wire.keys import Keys
from tests.servers import ClusterOfServers, Node


def heard(live: Subscription) -> tuple[str, bytes]:
    reply = live.hear(5)
    assert reply is not None
    return reply[0].decode(), reply[2]


def publish(client: redis.Redis, channel: str, text: str) -> None:
    client.execute_command("SPUBLISH", channel, text)


def test_each_channel_is_heard_where_it_lives(redis_client: redis.Redis, namespace: str) -> None:
    for number in range(8):
        channel = Keys(namespace).events(f"r{number}")
        live = Subscription.to(redis_client, channel)
        assert heard(live)[0] == "ssubscribe"
        publish(redis_client, channel, f"for {number}")
        assert heard(live) == ("smessage", b"for %d" % number)
        live.close()


def test_a_removed_channel_is_silent_and_the_others_are_not(redis_client: redis.Redis, namespace: str) -> None:
    kept, removed = f"{namespace}:{{r}}:kept", f"{namespace}:{{r}}:removed"
    live = Subscription(redis_client, owner_of(redis_client, kept))
    for channel in (kept, removed):
        live.add(channel)
        assert heard(live)[0] == "ssubscribe"
    live.remove(removed)
    assert live.hear(5) is None, "asked for, so nothing to report"
    publish(redis_client, removed, "no")
    publish(redis_client, kept, "yes")
    assert heard(live) == ("smessage", b"yes")
    live.close()
    with pytest.raises(redis.ConnectionError):
        live.add(kept)


def test_a_closed_connection_is_an_error(redis_client: redis.Redis, namespace: str) -> None:
    channel = Keys(namespace).events("r1")
    live = Subscription.to(redis_client, channel)
    assert heard(live)[0] == "ssubscribe"
    owner_of(redis_client, channel).client_kill_filter(_type="pubsub")
    with pytest.raises(redis.ConnectionError):
        live.hear(5)
    live.close()


def test_a_silent_machine_is_noticed_and_an_idle_one_is_not(
    redis_binary: Path, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that lost its power sends no FIN: readers would live on polls until the kernel gives up."""
    monkeypatch.setattr(subscription, "HEALTH_CHECK_S", 0.1)
    monkeypatch.setattr(subscription, "ANSWER_S", 0.4)
    node = Node(redis_binary, tmp_path)
    try:
        with contextlib.closing(connect(f"redis://127.0.0.1:{node.port}", role="test")) as client:
            live = Subscription.to(client, Keys(namespace).events("r1"))
            assert heard(live)[0] == "ssubscribe"
            assert [live.hear(0.05) for _ in range(20)] == [None] * 20, "its answers to PING count"
            node.send(signal.SIGSTOP)
            with pytest.raises(redis.ConnectionError, match="silent"):
                for _ in range(100):
                    live.hear(0.05)
            live.close()
    finally:
        node.send(signal.SIGCONT)
        node.end()


def test_a_channel_whose_slot_moves_says_so_and_is_found_again(redis_cluster: ClusterOfServers, namespace: str) -> None:
    channel = Keys(namespace).events("r1")
    home = redis_cluster.owner(channel)
    away = next(node for node in redis_cluster.primaries if node is not home)
    with contextlib.closing(connect(redis_cluster.url, role="test")) as client:
        for source, target in ((home, away), (away, home)):
            live = Subscription.to(client, channel)
            assert heard(live)[0] == "ssubscribe"
            redis_cluster.move_slot(channel, source, target)
            assert heard(live)[0] == "sunsubscribe"
            live.close()
            moved = Subscription.to(client, channel)
            assert heard(moved)[0] == "ssubscribe"
            publish(client, channel, "here")
            assert heard(moved) == ("smessage", b"here")
            moved.close()
