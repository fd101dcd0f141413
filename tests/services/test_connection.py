"""The connection policy: no library retries, errors translated, a missing Redis waited for."""

import contextlib
import threading
import time
from pathlib import Path

import pytest
import redis

from services.connection import SOCKET_TIMEOUT_S, address_of, connect, translated, wait_for_redis
from services.embedded import EmbeddedServer, free_port
from services.errors import ConfigurationError, Unavailable


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
        client.client() as single,
    ):
        identity = single.client_id()
        other.client_kill_filter(_id=identity)
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            single.incr(key)
        assert other.get(key) is None
        other.delete(key)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "redis://127.0.0.1:notaport/0"])
def test_an_unusable_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        connect(url, role="web")


def test_an_address_never_shows_the_password() -> None:
    assert address_of(connect("redis://me:secret@10.1.2.3:7000/1", role="web")) == "10.1.2.3:7000"
    assert address_of(connect("unix:///run/redis.sock", role="web")) == "/run/redis.sock"


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("refused"),
        redis.TimeoutError("slow"),
        redis.BusyLoadingError("loading"),
        redis.OutOfMemoryError("full"),
        redis.ReadOnlyError("replica"),
    ],
)
def test_what_may_pass_becomes_unavailable_with_a_retry_hint(error: redis.RedisError) -> None:
    with pytest.raises(Unavailable) as caught, translated():
        raise error
    assert caught.value.retry_after_s


def test_wrong_credentials_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError), translated():
        raise redis.AuthenticationError("WRONGPASS")


def test_a_reply_that_only_our_bug_causes_is_not_hidden() -> None:
    with pytest.raises(redis.ResponseError), translated():
        raise redis.ResponseError("WRONGTYPE")


def test_waiting_says_one_line_per_change_and_ends_when_redis_comes(tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    server = EmbeddedServer(tmp_path, port=port, appendfsync="no")
    missed_twice = threading.Event()

    def start_when_missed() -> None:
        missed_twice.wait(10)
        server.start()

    with contextlib.closing(connect(f"redis://127.0.0.1:{port}/0", role="test")) as client:
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


def test_waiting_ends_at_once_when_told_to_stop() -> None:
    stop = threading.Event()
    with contextlib.closing(connect(f"redis://127.0.0.1:{free_port()}/0", role="test")) as client:
        started = time.monotonic()
        assert not wait_for_redis(client, lambda line: stop.set(), stop)
        assert time.monotonic() - started < 5


def test_nothing_is_said_when_redis_answers(redis_client: redis.Redis) -> None:
    said: list[str] = []
    assert wait_for_redis(redis_client, said.append)
    assert not said
