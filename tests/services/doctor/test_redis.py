"""Faults planted in real servers: each is found, and a sound one is quiet."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer, free_port
from services.doctor import redis_access, redis_server
from services.doctor.findings import Finding
from services.doctor.redis_server import Server
from services.places import ROOT
from tests.servers import ClusterOfServers, Node, sentinels
from tests.services.doctor.told import only, told


@pytest.fixture(scope="module")
def node(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server of its own, which tests set otherwise and set back."""
    made = Node(redis_binary, tmp_path_factory.mktemp("node"), appendonly="yes", save="")
    yield made
    made.end()


@contextlib.contextmanager
def changed(node: Node, **settings: str) -> Iterator[Server]:
    """The server as it is seen while these settings are others."""
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    before = {name: node.client.config_get(name)[name] for name in names}
    for name, value in names.items():
        node.client.config_set(name, value)
    try:
        yield seen(node)
    finally:
        for name, value in before.items():
            node.client.config_set(name, value)


def url_of(node: Node, login: str = "") -> str:
    return f"redis://{login}127.0.0.1:{node.port}/0"


def seen(node: Node) -> Server:
    with contextlib.closing(connect(url_of(node), role="test")) as client:
        (server,) = redis_server.read_servers(client)
    return server


def reached(url: str, *, chosen: bool = True) -> list[tuple[str, str]]:
    with contextlib.closing(connect(url, role="test")) as client:
        return told(redis_access.check_reach(client, chosen=chosen, can_start=True))


JUDGES = (
    redis_server.check_version,
    redis_server.check_config,
    redis_server.check_persistence,
    redis_server.check_eviction,
    redis_server.check_memory,
    redis_server.check_connections,
    redis_server.check_cluster,
)


def judged(server: Server) -> list[Finding]:
    return [finding for judge in JUDGES for finding in judge(server)]


def of_an_old_line(finding: Finding) -> bool:
    """Of a Redis that its distribution keeps: this machine's may be one, and sound otherwise."""
    return finding.level == "note" and "fix no more security faults" in finding.message


# -- access -----------------------------------------------------------------------------------------------------------


def test_a_sound_server_is_ok_in_everything(node: Node) -> None:
    (answer,) = reached(url_of(node))
    assert answer[0] == "ok" and f"127.0.0.1:{node.port} answers in" in answer[1]
    assert {finding.level for finding in judged(seen(node)) if not of_an_old_line(finding)} == {"ok"}


def test_no_server_is_wrong_where_one_was_chosen_and_a_warning_where_up_brings_one() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    assert [level for level, _ in reached(url)] == ["wrong"]
    assert [level for level, _ in reached(url, chosen=False)] == ["warning"]


def test_a_port_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.connection.connect.SOCKET_TIMEOUT_S", 0.3)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        level, message = reached(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")[0]
    assert level == "wrong" and "Timeout" in message
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("login", ["", ":not-it@", "ann:secret@"])
def test_wrong_credentials_are_named_and_never_shown(node: Node, login: str) -> None:
    node.client.config_set("requirepass", "secret")  # who is connected stays so
    try:
        level, message = reached(url_of(node, login))[0]
    finally:
        node.client.config_set("requirepass", "")
    assert level == "wrong" and "refuses the credentials" in message
    assert "not-it" not in message


def test_a_user_without_info_is_told(node: Node) -> None:
    node.client.execute_command("ACL SETUSER blind on >p ~* &* +@all -info")
    level, message = reached(url_of(node, "blind:p@"))[0]
    assert level == "wrong" and "no permissions to run the 'info' command" in message


def test_a_replica_is_wrong_and_names_its_primary(node: Node, redis_binary: Path, tmp_path: Path) -> None:
    replica = Node(redis_binary, tmp_path, save="")
    replica.client.execute_command("REPLICAOF", "127.0.0.1", node.port)
    found = reached(url_of(replica))
    replica.end()
    assert found[1] == (
        "wrong",
        f"127.0.0.1:{replica.port} is a replica of 127.0.0.1:{node.port}, which refuses writes",
    )


def test_one_node_of_a_cluster_and_a_sentinel_are_no_single_server(
    redis_cluster: ClusterOfServers, redis_binary: Path, tmp_path: Path
) -> None:
    assert reached(url_of(redis_cluster.nodes[0]))[1][1].endswith("is one node of a cluster")
    config = tmp_path / "sentinel.conf"
    config.touch()
    watcher = Node(redis_binary, tmp_path, str(config), "--sentinel")
    assert reached(url_of(watcher))[1][1].endswith("is a sentinel, which keeps no data")
    watcher.end()


def test_another_clock_is_found_by_how_much(node: Node) -> None:
    with contextlib.closing(connect(url_of(node), role="test")) as client:
        assert only(redis_access.check_clocks(client))[0] == "ok"
        ahead = only(redis_access.check_clocks(client, lambda: time.time() + 5))
        behind = only(redis_access.check_clocks(client, lambda: time.time() - 300))
    assert ahead[0] == "warning" and "clock is 5.0 s ahead of" in ahead[1]
    assert behind[0] == "wrong" and "clock is 300.0 s behind" in behind[1]


@pytest.mark.parametrize(
    ("url", "levels"),
    [
        ("redis://127.0.0.1:1/0", ["ok"]),
        ("redis://localhost:1/0", ["ok"]),
        ("unix:///run/redis.sock", ["ok"]),
        ("redis://:p@10.1.2.3:1/0", ["ok"]),
        ("redis://10.1.2.3:1/0", ["warning"]),
        ("redis+cluster://10.1.2.3:1,10.1.2.4:1", ["warning"]),
        ("redis://:p@1.1.1.1:1/0", ["warning"]),
        ("redis://1.1.1.1:1/0", ["warning", "warning"]),
        ("rediss://:p@1.1.1.1:1/0", ["ok"]),
        ("rediss+sentinel://:p@1.1.1.1:1/chat", ["ok"]),
        ("redis+sentinel://:p@1.1.1.1:1/chat", ["warning"]),
    ],
)
def test_who_else_could_read_along_is_told_by_the_url(url: str, levels: list[str]) -> None:
    """Nothing is connected to."""
    with contextlib.closing(connect(url, role="test")) as client:
        found = told(redis_access.check_exposure(client))
    assert [level for level, _ in found] == levels


# -- the server -------------------------------------------------------------------------------------------------------


def test_evictions_lose_answers_where_there_is_a_limit(node: Node) -> None:
    with changed(node, maxmemory_policy="allkeys-lru") as server:
        assert only(redis_server.check_eviction(server))[0] == "warning"
    with changed(node, maxmemory_policy="allkeys-lru", maxmemory="1gb") as server:
        assert only(redis_server.check_eviction(server)) == (
            "wrong",
            "maxmemory-policy is allkeys-lru: a full Redis deletes questions and answers",
        )


def test_without_an_append_only_file_a_restart_forgets(node: Node) -> None:
    with changed(node, appendonly="no") as server:
        assert only(redis_server.check_persistence(server))[0] == "wrong"
    with changed(node, appendfsync="no") as server:
        assert only(redis_server.check_persistence(server))[0] == "warning"


def test_a_full_memory_is_found(node: Node) -> None:
    used = int(node.client.info("memory")["used_memory"])
    with changed(node, maxmemory=str(used // 2)) as server:
        level, message = only(redis_server.check_memory(server))
    assert level == "wrong" and "Redis refuses new requests" in message


def test_a_primary_that_waits_for_replicas_refuses_writes(node: Node) -> None:
    with changed(node, min_replicas_to_write="1") as server:
        level, message = only(redis_server.check_replicas(server, by_sentinel=False))
    assert level == "wrong" and "0 replica(s) follow and min-replicas-to-write is 1" in message


def test_connections_that_run_out_are_found(node: Node) -> None:
    others = [connect(url_of(node), role="test") for _ in range(9)]
    for client in others:
        client.ping()
    with changed(node, maxclients="12") as server:
        assert only(redis_server.check_connections(server))[0] == "warning"
    for client in others:
        client.close()


def test_a_failed_write_or_snapshot_is_told(node: Node) -> None:
    """Only a full disk brings these about: the fields are those that the server then has."""
    server = seen(node)
    failed = {"aof_last_write_status": "err", "aof_last_bgrewrite_status": "err", "rdb_last_bgsave_status": "err"}
    found = told(redis_server.check_persistence(replace(server, info={**server.info, **failed})))
    assert [level for level, _ in found] == ["wrong", "warning", "warning", "ok"]
    assert server.config is not None
    stops = replace(server, info={**server.info, **failed}, config={**server.config, "save": "60 1"})
    assert [level for level, _ in told(redis_server.check_persistence(stops))][:3] == ["wrong", "warning", "wrong"]


@pytest.mark.parametrize(
    ("versions", "level"),
    [
        ({"redis_version": "6.2.14"}, "wrong"),
        ({"redis_version": "7.0.15"}, "note"),
        ({"redis_version": "7.4.10"}, "warning"),
        ({"redis_version": "8.0.6"}, "note"),
        ({"redis_version": "8.2.8"}, "warning"),
        ({"redis_version": "8.2.9"}, "ok"),
        ({"redis_version": "8.10.1"}, "ok"),
        ({"redis_version": "9.0.0"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, "warning"),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.0"}, "warning"),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.9"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0-rc1"}, "warning"),
        ({"redis_version": "7.2.4", "valkey_version": "9.2.0"}, "ok"),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.30"}, "warning"),
    ],
)
def test_versions_are_told_apart(versions: dict[str, str], level: str) -> None:
    assert only(redis_server.check_version(Server("here", versions, None)))[0] == level


def test_the_least_patched_version_is_named() -> None:
    (finding,) = redis_server.check_version(Server("here", {"redis_version": "8.2.2"}, None))
    assert "8.2.2 has known security faults" in finding.message
    assert finding.remedy.startswith("install Redis 8.2.9 or newer, or make sure that your distribution's package has")


def test_the_redis_of_the_compose_file_has_the_fixes() -> None:
    """Those of the compose file."""
    image = re.search(r"image: redis:([\d.]+)-", (ROOT / "docker-compose.yml").read_text("utf-8"))
    assert image and only(redis_server.check_version(Server("compose", {"redis_version": image[1]}, None)))[0] == "ok"


def test_a_server_that_forbids_config_is_judged_by_its_info(node: Node) -> None:
    node.client.execute_command("ACL SETUSER managed on >p ~* &* +@all -config")
    with contextlib.closing(connect(url_of(node, "managed:p@"), role="test")) as client:
        (server,) = redis_server.read_servers(client)
    assert server.config is None
    notes = [f.message for f in judged(server) if f.level != "ok" and not of_an_old_line(f)]
    assert len(notes) == 1 and "the server forbids CONFIG" in notes[0]
    assert ("ok", "append-only file, appendfsync not to be seen") in told(judged(server))


def test_each_node_of_a_cluster_is_judged_and_named(redis_cluster: ClusterOfServers) -> None:
    odd = redis_cluster.nodes[1]
    odd.client.config_set("maxmemory-policy", "allkeys-lru")
    with contextlib.closing(connect(redis_cluster.url, role="test")) as client:
        assert told(redis_access.check_reach(client, chosen=True, can_start=True))[0][0] == "ok"
        servers = redis_server.read_servers(client)
    odd.client.config_set("maxmemory-policy", "noeviction")
    assert len(servers) == 3
    assert only(redis_server.of_all(servers, redis_server.check_connections))[0] == "ok"
    level, message = only(redis_server.of_all(servers, redis_server.check_eviction))
    assert level == "warning" and message.startswith(f"127.0.0.1:{odd.port}: maxmemory-policy is allkeys-lru")


def test_behind_sentinel_the_watchers_and_the_replicas_count(redis_binary: Path, tmp_path: Path) -> None:
    with sentinels(redis_binary, tmp_path) as (url, _, replica):
        dead = f"127.0.0.1:{free_port()}"
        with contextlib.closing(connect(url, role="test")) as client:
            assert only(redis_access.check_sentinels(client)) == ("ok", "all 3 sentinels answer")
            (server,) = redis_server.read_servers(client)
            level, message = only(redis_server.check_replicas(server, by_sentinel=True))
            assert level == "note" and "min-replicas-to-write is 0" in message
        with contextlib.closing(connect(url.replace("/chat", f",{dead}/chat"), role="test")) as client:
            assert only(redis_access.check_sentinels(client)) == ("warning", "3 of 4 sentinels answer")
        replica.client.execute_command("REPLICAOF", "NO", "ONE")
        alone = replace(server, info={**server.info, "connected_slaves": 0})
        assert only(redis_server.check_replicas(alone, by_sentinel=True))[0] == "warning"


def test_what_is_no_redis_is_told(redis_server: EmbeddedServer | ClusterOfServers) -> None:
    """A web server's port in REDIS_URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    found = reached(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
    thread.join(10)
    listener.close()
    assert [level for level, _ in found] == ["wrong"]


def test_a_cluster_url_for_one_server_is_told(node: Node) -> None:
    level, message = reached(f"redis+cluster://127.0.0.1:{node.port}")[0]
    assert level == "wrong" and "is a single server" in message
    with pytest.raises(redis.ResponseError):
        node.client.execute_command("CLUSTER SLOTS")
