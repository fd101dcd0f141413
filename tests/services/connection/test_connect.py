"""The connection policy: no library retries, errors translated, a missing Redis waited for."""

import contextlib
import re
import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from services.connection.cluster import Cluster, owner_of
from services.connection.connect import SOCKET_TIMEOUT_S, address_of, connect, translated, wait_for_redis
from services.connection.embedded import EmbeddedServer, free_port
from services.errors import ConfigurationError, Unavailable
from tests.conftest import Eventually
from tests.servers import ClusterOfServers, Node


def test_a_client_speaks_bytes_over_resp2_and_never_retries(redis_client: redis.Redis) -> None:
    redis_client_id = redis_client.client_id()
    options = redis_client.connection_pool.connection_kwargs
    assert isinstance(redis_client_id, int)
    assert options["protocol"] == 2
    assert options["retry"].get_retries() == 0
    assert options["socket_timeout"] == SOCKET_TIMEOUT_S > 1
    assert redis_client.get("never-set") is None
    assert redis_client.echo("x") == b"x"


def test_a_connection_names_its_role(redis_client: redis.Redis) -> None:
    assert redis_client.client_getname().startswith("chatserver-test-")


def test_a_command_on_a_broken_connection_fails_at_once_instead_of_running_twice(
    redis_server: EmbeddedServer, namespace: str
) -> None:
    """Guards rule 6: an acknowledgement repeated by the library forgets a request for ever."""
    key = f"{namespace}:counter"
    with (
        contextlib.closing(connect(redis_server.url, role="worker")) as client,
        contextlib.closing(connect(redis_server.url, role="test")) as other,
        owner_of(client, key).client() as single,
    ):
        identity = single.client_id()
        owner_of(other, key).client_kill_filter(_id=identity)
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            single.incr(key)
        assert other.get(key) is None
        other.delete(key)


def test_a_unix_socket_is_a_way_in(redis_binary: Path, tmp_path: Path) -> None:
    node = Node(redis_binary, tmp_path, unixsocket="socket")
    with contextlib.closing(connect(f"unix://{node.folder}/socket", role="test")) as client:
        assert client.ping()
    node.end()


class ReplyEater(socketserver.ThreadingTCPServer):
    """A proxy before a server: an INCR is executed there, then the connection ends instead of bringing its reply."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._port = port
        self.url = f"redis://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        eating = False
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            while True:
                for ready in select.select([request, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data or (eating and ready is server):
                        return
                    eating = eating or b"INCR" in data
                    (server if ready is request else request).sendall(data)


@pytest.fixture
def eaten(redis_server: EmbeddedServer | ClusterOfServers) -> Iterator[redis.Redis]:
    """A client of the server, or of each node, through such a proxy."""
    nodes = redis_server.nodes if isinstance(redis_server, ClusterOfServers) else [redis_server]
    proxies = {("127.0.0.1", node.port): ReplyEater(node.port) for node in nodes}
    login = "".join(urlsplit(redis_server.url).netloc.rpartition("@")[:2])
    urls = {address: proxy.url.replace("//", f"//{login}") for address, proxy in proxies.items()}
    clients = {address: connect(url, role="worker") for address, url in urls.items()}
    first = next(iter(clients))
    yield Cluster([first], clients.__getitem__) if len(nodes) > 1 else clients[first]
    for client in clients.values():
        client.close()
    for proxy in proxies.values():
        proxy.shutdown()
        proxy.server_close()


@pytest.mark.parametrize("how", ["command", "pipeline"])
def test_a_command_whose_reply_is_lost_is_executed_once(
    redis_client: redis.Redis, eaten: redis.Redis, namespace: str, how: str
) -> None:
    """Guards rule 6 where it was broken: redis-py's cluster client sends a pipeline's commands again."""
    key = f"{namespace}:counter"
    assert eaten.get(key) is None
    with pytest.raises(redis.ConnectionError):
        if how == "command":
            eaten.incr(key)
        else:
            pipe = eaten.pipeline(transaction=False)
            pipe.execute_command("INCR", key)
            for reply in pipe.execute(raise_on_error=False):
                raise reply
    assert redis_client.getdel(key) == b"1"
    assert eaten.get(key) is None, "the next command is served"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://127.0.0.1",
        "redis://127.0.0.1:notaport/0",
        "redis://127.0.0.1/0?colour=red",
        "redis+cluster://",
        "redis+cluster://a:1,,b:2",
        "redis+cluster://a:1/1",
        "redis+sentinel://a:1,b:2",
        "redis+sentinel://a:1/service/zero",
    ],
)
def test_an_unusable_url_is_a_configuration_error_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL=") as caught:
        connect(url, role="web")
    assert repr(url) in str(caught.value) and "redis+sentinel://" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:se/cret@host",
        "redis+cluster://me:se/cret@@host:x",
        "redis+sentinel://me:secret@host/service?sentinel_password=secret&colour=red",
    ],
)
def test_the_message_about_an_unusable_url_never_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(url, role="web")
    assert "cret" not in str(caught.value) and "host" in str(caught.value)


def test_an_address_never_shows_the_password() -> None:
    def address(url: str) -> str:
        return address_of(connect(url, role="web"))

    assert address("redis://me:secret@10.1.2.3:7000/1") == "10.1.2.3:7000"
    assert address("unix:///run/redis.sock") == "/run/redis.sock"
    assert address("rediss+cluster://me:secret@a:7000,[::1]:7001,b") == "cluster a:7000,::1:7001,b:6379"
    sentinel = "redis+sentinel://me:secret@a:26379,b/chat/1?sentinel_password=hidden"
    assert address(sentinel) == "chat of sentinel a:26379,b:26379"


def test_the_parts_of_a_sentinel_url_reach_the_servers_that_they_are_for() -> None:
    client = connect("rediss+sentinel://me:pw@a/chat/3?sentinel_username=s&sentinel_password=spw", role="web")
    pool = client.connection_pool
    made = pool.connection_class(**pool.connection_kwargs)
    assert (made.username, made.password, made.db) == ("me", "pw", 3)
    watcher = pool.sentinel_manager.sentinels[0].connection_pool
    asked = watcher.connection_class(**watcher.connection_kwargs)
    assert (asked.username, asked.password, asked.db) == ("s", "spw", 0)
    assert isinstance(made, redis.SSLConnection) and isinstance(asked, redis.SSLConnection)
    assert made.retry.get_retries() == asked.retry.get_retries() == 0


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("refused"),
        redis.TimeoutError("slow"),
        redis.BusyLoadingError("loading"),
        redis.OutOfMemoryError("full"),
        redis.ReadOnlyError("replica"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        redis.sentinel.MasterNotFoundError("No master found for 'chat'"),
        redis.exceptions.ClusterDownError("CLUSTERDOWN The cluster is down"),
        redis.exceptions.MovedError("7 127.0.0.1:7001"),
        redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
    ],
)
def test_what_may_pass_becomes_unavailable_with_a_retry_hint(error: redis.RedisError) -> None:
    with pytest.raises(Unavailable) as caught, translated():
        raise error
    assert caught.value.retry_after_s


@pytest.mark.parametrize("variable", ["REDIS_URL", "CHATSERVER_BROKER_URL"])
def test_wrong_credentials_name_the_variable_and_the_remedy(variable: str) -> None:
    with pytest.raises(ConfigurationError) as caught, translated(variable):
        raise redis.AuthenticationError("WRONGPASS")
    assert f"credentials in {variable}: WRONGPASS" in caught.value.message
    assert f"into {variable}: redis://user" in caught.value.remedy


def test_a_reply_that_only_our_bug_causes_is_not_hidden() -> None:
    with pytest.raises(redis.ResponseError), translated():
        raise redis.ResponseError("WRONGTYPE")


def test_a_server_whose_disk_fails_is_waited_for(tmp_path: Path, eventually: Eventually) -> None:
    """It refuses even PING, with an error that no class of the library stands for: programs ended with a traceback."""
    said = list[str]()
    with (
        EmbeddedServer(tmp_path, appendfsync="no") as server,
        contextlib.closing(connect(server.url, role="test")) as client,
    ):
        in_the_way = Path(client.config_get("dir")["dir"]) / "dump.rdb" / "a file"
        in_the_way.parent.mkdir()
        in_the_way.touch()  # a snapshot cannot take this folder's place
        client.config_set("save", "3600 1000000")
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the failed snapshot")
        waiting = threading.Thread(target=wait_for_redis, args=(client, said.append))
        waiting.start()
        eventually(lambda: said and "refuses to write: MISCONF" in said[0], "the reason")
        in_the_way.unlink()
        in_the_way.parent.rmdir()
        client.bgsave()
        waiting.join(20)
        assert not waiting.is_alive() and len(said) == 2 and said[1].endswith("answers")


def test_waiting_says_one_line_per_change_and_ends_when_redis_comes(tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    server = EmbeddedServer(tmp_path, port=port, appendfsync="no")
    missed_twice = threading.Event()

    def start_when_missed() -> None:
        missed_twice.wait(10)
        server.start()

    with contextlib.closing(connect(server.url, role="test")) as client:
        thread = threading.Thread(target=start_when_missed)
        thread.start()

        def say(line: str) -> None:
            said.append(line)
            missed_twice.set()

        assert wait_for_redis(client, say)
        thread.join()
        assert said[0].startswith(f"waiting for Redis at 127.0.0.1:{port}: ")
        assert said[-1] == f"Redis at 127.0.0.1:{port} answers"
        assert len(said) == len(set(said))
    server.stop()


def test_an_outage_of_sentinel_is_short_in_words_and_leaves_nothing_behind() -> None:
    """redis-py kept one connection object for each attempt: hours of outage filled the memory."""
    port = free_port()
    with contextlib.closing(connect(f"redis+sentinel://127.0.0.1:{port}/chat", role="test")) as client:
        for _ in range(20):
            with pytest.raises(Unavailable) as caught, translated():
                client.ping()
        assert str(caught.value).endswith(f"no sentinel of 127.0.0.1:{port} knows a primary of 'chat'")
        assert len(client.connection_pool._connections) == 1


def test_waiting_ends_at_once_when_told_to_stop() -> None:
    stop = threading.Event()
    with contextlib.closing(connect(f"redis://127.0.0.1:{free_port()}/0", role="test")) as client:
        started = time.monotonic()
        assert not wait_for_redis(client, lambda line: stop.set(), stop)
        assert time.monotonic() - started < 5


@contextlib.contextmanager
def answering(reply: Callable[[], bytes]) -> Iterator[int]:
    """The port of a server that gives this reply to PING and names connections before."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while commands := self.request.recv(65_536):
                named = b"+OK\r\n" * len(re.findall(rb"\*\d+\r\n", commands))
                self.request.sendall(reply() if b"PING" in commands else named)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_waiting_for_one_that_accepts_and_is_silent_ends_at_once_when_told_to_stop() -> None:
    """Its time-out is five seconds, and so was the end of a process that waited for it."""
    stop = threading.Event()
    with (
        answering(lambda: b"") as port,
        contextlib.closing(connect(f"redis://127.0.0.1:{port}", role="test")) as client,
    ):
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        started = time.monotonic()
        assert not wait_for_redis(client, lambda line: None, stop)
        assert time.monotonic() - started < SOCKET_TIMEOUT_S - 1
        timer.join()


def test_one_that_loads_its_data_is_waited_for() -> None:
    said: list[str] = []
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    with answering(lambda: loading if len(said) < 1 else b"+PONG\r\n") as port:
        url = f"redis://127.0.0.1:{port}"
        with contextlib.closing(connect(url, role="test")) as client:
            assert wait_for_redis(client, said.append)
    assert said == [
        f"waiting for Redis at 127.0.0.1:{port}: Redis does not answer: Redis is loading the dataset in memory",
        f"Redis at 127.0.0.1:{port} answers",
    ]


def test_a_host_without_an_address_is_waited_for() -> None:
    said: list[str] = []
    stop = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        stop.set()

    with contextlib.closing(connect("redis://nowhere.invalid", role="test")) as client:
        assert not wait_for_redis(client, say, stop)
    assert said[0].startswith("waiting for Redis at nowhere.invalid:6379: Redis does not answer: ")


def test_reasons_that_take_turns_are_each_said_once() -> None:
    said: list[str] = []
    replies = iter([b"-LOADING a\r\n", b"-LOADING b\r\n", b"-LOADING a\r\n", b"-LOADING b\r\n"])
    with (
        answering(lambda: next(replies, b"+PONG\r\n")) as port,
        contextlib.closing(connect(f"redis://127.0.0.1:{port}", role="test")) as client,
    ):
        assert wait_for_redis(client, said.append)
    assert len(said) == 3


def test_a_missing_permission_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError), translated():
        raise redis.exceptions.NoPermissionError("NOPERM User x has no permissions to run the 'ping' command")


def test_nothing_is_said_when_redis_answers(redis_client: redis.Redis) -> None:
    said: list[str] = []
    assert wait_for_redis(redis_client, said.append)
    assert not said
