"""Each fault of the proxy does what it says, and nothing beside it."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.connection.embedded import EmbeddedServer
from tests.faults.proxy import Proxy

Connect = Callable[[], redis.Redis]


@pytest.fixture
def proxy(redis_server: EmbeddedServer) -> Iterator[Proxy]:
    with Proxy(redis_server.url) as made:
        yield made


@pytest.fixture
def through(proxy: Proxy) -> Iterator[Connect]:
    """Clients that go through the proxy, do not repeat anything and give up after 0.3 s."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(
            redis.Redis.from_url(proxy.url, protocol=2, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))
        )


def test_commands_replies_and_big_values_pass_unchanged(through: Connect, namespace: str) -> None:
    client, value = through(), random.Random(1).randbytes(300_000)
    pipe = client.pipeline(transaction=False)
    pipe.set(f"{namespace}:a", value).get(f"{namespace}:a").get(f"{namespace}:none").lrange(f"{namespace}:none", 0, -1)
    assert pipe.execute() == [True, value, None, []]


def test_a_delay_slows_each_direction_and_heals(proxy: Proxy, through: Connect) -> None:
    client = through()

    def ping_s() -> float:
        start = time.monotonic()
        client.ping()
        return time.monotonic() - start

    ping_s()  # connects
    proxy.delay(0.05)
    assert 0.1 <= ping_s() < 0.3
    proxy.delay(0)
    assert min(ping_s() for _ in range(10)) < 0.05, "one may have had to wait for the processor, ten hardly"


def test_a_reset_cuts_what_is_open_and_new_connections_work(proxy: Proxy, through: Connect) -> None:
    client = through()
    pubsub = client.pubsub()
    pubsub.subscribe("anything")
    assert pubsub.get_message(timeout=1)["type"] == "subscribe"
    proxy.reset()
    with pytest.raises(redis.ConnectionError):
        pubsub.get_message(timeout=1)
    with contextlib.suppress(redis.ConnectionError):
        client.ping()
    assert client.ping()


def test_in_a_blackhole_connections_stay_and_are_dead_for_good(proxy: Proxy, through: Connect, namespace: str) -> None:
    client = through()
    with client.client() as connection:
        connection.ping()
        proxy.blackhole()
        with pytest.raises(redis.TimeoutError):
            connection.set(f"{namespace}:lost", 1)
    with pytest.raises(redis.TimeoutError):
        through().ping()
    proxy.restore()
    assert client.get(f"{namespace}:lost") is None
    assert client.ping()


def test_an_idle_connection_survives_a_blackhole(proxy: Proxy, through: Connect) -> None:
    with through().client() as connection:
        number = connection.client_id()
        proxy.blackhole()
        proxy.restore()
        assert connection.client_id() == number


def test_dropped_pushes_leave_confirmations_and_pongs(
    proxy: Proxy, through: Connect, redis_client: redis.Redis
) -> None:
    pubsub = through().pubsub()
    proxy.drop_pushes(1.0)
    pubsub.subscribe("drops")
    assert pubsub.get_message(timeout=1)["type"] == "subscribe"
    redis_client.publish("drops", "lost")
    pubsub.ping()
    assert pubsub.get_message(timeout=1)["type"] == "pong"
    proxy.drop_pushes(0)
    redis_client.publish("drops", "heard")
    assert pubsub.get_message(timeout=1)["data"] == b"heard"


def test_some_pushes_are_dropped_whole(proxy: Proxy, through: Connect, redis_client: redis.Redis) -> None:
    pubsub = through().pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("half")
    pubsub.get_message(timeout=1)
    proxy.drop_pushes(0.5, random.Random(3))
    for number in range(200):
        redis_client.publish("half", f"{number}\r\n*3\r\n")
    pubsub.ping()
    heard = []
    while (message := pubsub.get_message(timeout=1))["type"] != "pong":
        heard.append(message["data"])
    assert heard == sorted(heard, key=lambda data: int(data.split()[0])) and 50 < len(heard) < 150
    assert len(heard) == 200 - proxy.num_dropped and all(data.endswith(b"\r\n*3\r\n") for data in heard)


def test_a_held_command_and_what_follows_it_wait_for_the_release(
    proxy: Proxy, through: Connect, redis_client: redis.Redis, namespace: str, eventually
) -> None:
    held = proxy.hold_when(b"second")
    pipe = through().pipeline(transaction=False)
    pipe.set(f"{namespace}:first", 1).set(f"{namespace}:second", 1).set(f"{namespace}:third", 1)
    with pytest.raises(redis.TimeoutError):
        pipe.execute()
    assert held.reached.wait(1) and b"second" in held.command
    assert through().exists(f"{namespace}:first", f"{namespace}:third") == 1
    proxy.release(held)
    eventually(lambda: redis_client.exists(f"{namespace}:second", f"{namespace}:third") == 2, "the late arrival")


def test_a_held_command_never_arrives_after_a_reset(
    proxy: Proxy, through: Connect, redis_client: redis.Redis, namespace: str
) -> None:
    held = proxy.hold_when(b":never")
    with pytest.raises(redis.TimeoutError):
        through().set(f"{namespace}:never", 1)
    assert held.reached.wait(1)
    proxy.reset()
    proxy.release(held)
    through().ping()
    assert not redis_client.exists(f"{namespace}:never")


def test_a_sweep_crashes_after_each_command_and_is_told_when_it_is_past_the_end(
    proxy: Proxy, through: Connect, redis_client: redis.Redis, namespace: str
) -> None:
    counts = []
    for n in range(1, 10):
        key = f"{namespace}:{n}"
        point = proxy.after_commands(n, proxy.reset, mentioning=key.encode())
        pipe = through().pipeline(transaction=False)
        pipe.incr(key).ping().incr(key).incr(key)
        with contextlib.suppress(redis.ConnectionError):
            pipe.execute()
        counts.append(int(redis_client.get(key)))
        if not point.reached.is_set():
            break
    assert counts == [1, 2, 3, 3]
