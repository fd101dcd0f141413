"""The cluster's client on three real primaries: routing, redirections, a topology that changes, nodes that are down."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.chat.journal import Journal, Refusal
from services.chat.requests import Requests
from services.chat.scripts import script
from services.connection.cluster import owner_of, primaries_of
from services.connection.connect import address_of, connect, wait_for_redis
from services.connection.embedded import EmbeddedServer, free_port
from services.errors import ConfigurationError
from services.serving.overview import overview
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Event, Message
from tests.servers import ClusterOfServers, Node


@pytest.fixture
def client(redis_cluster: ClusterOfServers) -> Iterator[redis.Redis]:
    with contextlib.closing(connect(redis_cluster.url, role="test")) as client:
        yield client


def other_than(cluster: ClusterOfServers, node: Node) -> Node:
    return next(primary for primary in cluster.primaries if primary is not node)


def test_keys_of_all_nodes_are_reached(client: redis.Redis, namespace: str) -> None:
    keys = [f"{namespace}:{{{number}}}" for number in range(30)]
    assert {owner_of(client, key) for key in keys} == set(primaries_of(client))
    for key in keys:
        client.set(key, key, ex=60)
    assert [client.get(key).decode() for key in keys] == keys


def test_the_commands_of_a_pipeline_are_answered_in_order(client: redis.Redis, namespace: str) -> None:
    keys = [f"{namespace}:{{{number}}}" for number in range(30)]
    pipe = client.pipeline(transaction=False)
    for number, key in enumerate(keys):
        pipe.execute_command("SETEX", key, 60, number)
        pipe.execute_command("GET", key)
    pipe.execute_command("LPUSH", keys[0], "x")
    *replies, wrong = pipe.execute(raise_on_error=False)
    assert replies[1::2] == [b"%d" % number for number in range(30)]
    assert "WRONGTYPE" in str(wrong)


def test_a_moved_slot_is_followed_by_commands_and_pipelines(
    client: redis.Redis, redis_cluster: ClusterOfServers, namespace: str
) -> None:
    single, piped = f"{namespace}:single", f"{namespace}:piped"
    for key in (single, piped):
        client.set(key, "before", ex=60)
        home = redis_cluster.owner(key)
        redis_cluster.move_slot(key, home, other_than(redis_cluster, home))
    pipe = client.pipeline(transaction=False)
    pipe.execute_command("GETSET", piped, "after")
    assert pipe.execute(raise_on_error=False) == [b"before"]
    assert client.getset(single, "after") == b"before"
    for key in (single, piped):
        home = redis_cluster.owner(key)
        redis_cluster.move_slot(key, other_than(redis_cluster, home), home)
        assert client.get(key) == b"after", "and back"


def test_a_key_of_a_slot_on_its_way_is_asked_for_at_the_target(
    client: redis.Redis, redis_cluster: ClusterOfServers, namespace: str
) -> None:
    key = f"{namespace}:moving"
    source = redis_cluster.owner(key)
    target = other_than(redis_cluster, source)
    slot = source.client.execute_command("CLUSTER KEYSLOT", key)
    target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", redis_cluster.id_of(source))
    source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", redis_cluster.id_of(target))
    pipe = client.pipeline(transaction=False)
    pipe.execute_command("SETEX", key, 60, "there")
    assert pipe.execute(raise_on_error=False) == [True]
    assert client.get(key) == b"there"
    assert target.client.execute_command("CLUSTER COUNTKEYSINSLOT", slot) == 1
    with pytest.raises(redis.ResponseError, match=r"^WRONGTYPE"):
        client.lpush(key, "an error comes through as it is")
    client.delete(key)
    for node in (source, target):
        node.client.execute_command("CLUSTER SETSLOT", slot, "STABLE")


def test_a_script_that_a_node_has_forgotten_is_sent_again(
    client: redis.Redis, redis_cluster: ClusterOfServers, namespace: str
) -> None:
    """Called alone and in a pipeline: a node that joined, or was promoted, knows no scripts."""
    journal = Journal(client, Keys(namespace))
    rids = [f"r{number}" for number in range(12)]
    for node in redis_cluster.primaries:
        node.client.script_flush()
    rules = {"max_tries": 3, "max_begins": 20, "deadline_ms": 60_000}
    for rid in rids:
        request = ChatRequest(rid, "ann", "m", (Message("user", "hi"),))
        journal.begin(request, request.encode(), epoch=1, nonce="a", wid="w", **rules)
    for expected in ({"NoScriptError"}, {"list"}):
        pipe = client.pipeline(transaction=False)
        for rid in rids:
            pipe.execute_command(*journal.append_command(rid, 1, Event("tokens", "a", 0, 0, (7,), "x")))
        assert {type(reply).__name__ for reply in pipe.execute(raise_on_error=False)} == expected
        journal.load_append()
    assert not any(isinstance(journal.finish(rid, 1, Event("finished", "a", 1, 1)), Refusal) for rid in rids)


def test_a_node_that_is_down_costs_its_own_commands_only(redis_binary: Path, tmp_path: Path, namespace: str) -> None:
    cluster = ClusterOfServers(redis_binary, tmp_path)
    client = connect(cluster.url, role="test")
    try:
        for node in cluster.primaries:  # else the others stop to answer as well
            node.client.config_set("cluster-require-full-coverage", "no")
        assert client.ping()
        keys = [f"{namespace}:{{{number}}}" for number in range(20)]
        lost = {key for key in keys if cluster.owner(key) is cluster.primaries[1]}
        cluster.primaries[1].end()
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.execute_command("SET", key, 1)
        replies = dict(zip(keys, pipe.execute(raise_on_error=False), strict=True))
        assert {key for key, reply in replies.items() if isinstance(reply, redis.ConnectionError)} == lost
        client.execute_command("SCRIPT LOAD", script("append").text)
        client.publish(f"{namespace}:control", "x")
        with pytest.raises(redis.ConnectionError):
            client.ping()
    finally:
        client.close()
        cluster.stop()


def test_one_living_seed_is_enough(redis_cluster: ClusterOfServers, namespace: str) -> None:
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{redis_cluster.nodes[2].port}"
    with contextlib.closing(connect(url, role="test")) as client:
        assert wait_for_redis(client, pytest.fail)
        assert client.hgetall(f"{namespace}:none") == {}


def test_without_any_node_the_error_names_what_was_tried(namespace: str) -> None:
    port = free_port()
    with contextlib.closing(connect(f"redis+cluster://127.0.0.1:{port}", role="test")) as client:
        assert address_of(client) == f"cluster 127.0.0.1:{port}"
        with pytest.raises(redis.ConnectionError, match=str(port)):
            client.get(f"{namespace}:none")


def test_a_single_server_is_not_taken_for_a_cluster(redis_binary: Path, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, binary=redis_binary, appendfsync="no") as server:
        url = server.url.replace("redis://", "redis+cluster://")
        with (
            contextlib.closing(connect(url, role="test")) as client,
            pytest.raises(ConfigurationError, match="redis://"),
        ):
            client.ping()


def test_the_overview_sums_over_the_primaries(client: redis.Redis, namespace: str) -> None:
    keys = Keys(namespace)
    client.sadd(keys.models, "m")
    Requests(client, keys).submit(ChatRequest("r1", "ann", "m", (Message("user", "hi"),)))
    found = overview(client, keys)
    assert found["redis"]["primaries"] == 3 and found["redis"]["used_memory_mib"] > 3
    assert [(row["rid"], row["status"]) for row in found["requests"]] == [("r1", "new")]
