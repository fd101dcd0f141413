"""Connects a process to Redis: one connection policy, one translation of errors.

The client library never repeats a command. A command that it repeats after a lost reply may acknowledge an entry that
a restarted Redis has forgotten. The scripts are idempotent, and their callers decide what to repeat.
"""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.exceptions import AskError, ClusterDownError, NoPermissionError, TryAgainError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from services.connection.cluster import Address, Cluster
from services.errors import ConfigurationError, Unavailable
from services.machine.attempt import attempt

Role = Literal["worker", "web", "command", "test"]

CONNECT_TIMEOUT_S = 5.0
SOCKET_TIMEOUT_S = 5.0  # no command of ours blocks; a half-open connection costs its reader this long
SENTINEL_TIMEOUT_S = 1.0  # then the next one is asked
HEALTH_CHECK_S = 15
# Of one client to one server; who finds none free waits for one, where redis-py's default pool would refuse.
MAX_CONNECTIONS = 64
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
STOP_LOOK_S = 0.1

URL_VARIABLE = "REDIS_URL"  # where the URL of our Redis is set; that of Celery's may be another
EXAMPLES = (
    "redis://127.0.0.1:6379/0",
    "unix:///run/redis.sock",
    "redis+cluster://user:password@host1:6379,host2:6379",
    "redis+sentinel://user:password@host1:26379,host2:26379/service",
)
_TOPOLOGY = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>cluster|sentinel)://(?P<login>.*@)?(?P<hosts>[^/?]+)(?P<path>/[^?]*)?(?P<query>\?.*)?"
)
_NODE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@]+)(?::([0-9]{1,5}))?")


def connect(url: str, *, role: Role, variable: str = URL_VARIABLE) -> redis.Redis:
    """A thread-safe client that answers in bytes; it connects at the first command. Raises ConfigurationError.

    `url` has the form of one of EXAMPLES, or the same with `rediss` for TLS; docs/redis.md explains them. Errors name
    the `variable` that sets it.
    """
    policy = {
        "protocol": 2,
        "decode_responses": False,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_S,
        "retry": Retry(NoBackoff(), 0),
        "client_name": f"chatserver-{role}-{socket.gethostname()}-{os.getpid()}".replace(" ", "_"),
    }
    try:
        topology = _TOPOLOGY.fullmatch(url)
        if topology is None:
            client = _single(parse_url(url) | policy)
        elif topology["kind"] == "cluster":
            client = _cluster(_nodes(topology["hosts"], 6379), _options(topology) | policy)
        else:
            client = _behind_sentinel(_nodes(topology["hosts"], 26379), _options(topology) | policy)
        options = client.connection_pool.connection_kwargs
        client.connection_pool.connection_class(**options)  # opens nothing; refuses an option that does not exist
    except (ValueError, TypeError):
        # Not the library's words: they may quote a part of the password.
        raise ConfigurationError(
            f"{variable}={_redacted(url)!r} is not usable. Examples: {', '.join(EXAMPLES)}"
        ) from None
    return client


def _single(options: dict[str, Any]) -> redis.Redis:
    if "path" in options:
        del options["socket_keepalive"]  # of TCP
    pool = redis.BlockingConnectionPool(max_connections=MAX_CONNECTIONS, timeout=SOCKET_TIMEOUT_S, **options)
    return redis.Redis.from_pool(pool)


def _cluster(nodes: list[Address], options: dict[str, Any]) -> redis.Redis:
    if options.pop("db", 0) != 0:
        raise ValueError("a cluster has one database, 0")
    return Cluster(nodes, lambda address: _single({**options, "host": address[0], "port": address[1]}))


class _Sentinels(Sentinel):  # type: ignore[misc]  # redis-py is untyped
    def discover_master(self, service_name: str) -> Address:
        try:
            found: Address = super().discover_master(service_name)
        except MasterNotFoundError:  # its words would list every option of every connection
            known = _listed(_sentinels(self))
            raise MasterNotFoundError(f"no sentinel of {known} knows a primary of {service_name!r}") from None
        return found


class _SentinelPool(SentinelConnectionPool, redis.BlockingConnectionPool):  # type: ignore[misc]
    """Asks Sentinel for the primary at each new connection. A caller waits when all connections are in use."""

    def owns_connection(self, connection: Any) -> bool:
        """Also one that could not connect: redis-py would make another for each attempt, and forget none of them."""
        return not connection.is_connected or bool(super().owns_connection(connection))


def _behind_sentinel(nodes: list[Address], options: dict[str, Any]) -> redis.Redis:
    """`options` are for the data servers; those that start with `sentinel_`, and only those, are for the sentinels."""
    service = options.pop("service")
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    tls["ssl"] = options["ssl"] = options.pop("connection_class", None) is SSLConnection
    waits = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    sentinel = _Sentinels(nodes, sentinel_kwargs={"protocol": 2, "retry": options["retry"], **own, **tls, **waits})
    return sentinel.master_for(
        service,
        connection_pool_class=_SentinelPool,
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_S,
        **options,
    )


def _nodes(hosts: str, default_port: int) -> list[Address]:
    """`a:1,b,[::1]:3` as addresses."""
    found = []
    for node in hosts.split(","):
        match = _NODE.fullmatch(node)
        if match is None:
            raise ValueError("not host:port")
        found.append((match[1].strip("[]"), int(match[2] or default_port)))
    return found


def _options(topology: re.Match[str]) -> dict[str, Any]:
    """The options in the rest of the URL, beside the hosts: login, database, service, query."""
    path, service = topology["path"] or "", {}
    if topology["kind"] == "sentinel":
        name, _, path = path.strip("/").partition("/")
        if not name:
            raise ValueError("no service")
        service = {"service": name}
    if not re.fullmatch("/?[0-9]*", path):
        raise ValueError("not a database")
    url = f"{topology['scheme']}://{topology['login'] or ''}host/{path.strip('/')}{topology['query'] or ''}"
    return {name: value for name, value in parse_url(url).items() if name != "host"} | service


def _redacted(url: str) -> str:
    """The value without anything that may be a password."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"(?<=//).*@", "***@", url))


def address_of(client: redis.Redis) -> str:
    """The address of a client's server, for messages. It never holds the password."""
    if isinstance(client, Cluster):
        return "cluster " + _listed(client.seeds)
    pool = client.connection_pool
    options = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        return f"{pool.service_name} of sentinel " + _listed(_sentinels(pool.sentinel_manager))
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def _sentinels(manager: Sentinel) -> list[Address]:
    options = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    return [(each["host"], each["port"]) for each in options]


def _listed(nodes: Sequence[Address]) -> str:
    return ",".join(f"{host}:{port}" for host, port in nodes)


def credentials_in(variable: str) -> str:
    """The remedy when Redis wants a login."""
    return f"put user and password into {variable}: redis://user:password@host:6379/0"


def server_time(client: redis.Redis) -> float:
    """Seconds by the clock of Redis, the only clock that all machines share."""
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


@contextmanager
def translated(variable: str = URL_VARIABLE) -> Iterator[None]:
    """Turn errors of Redis into Unavailable when they may pass, and into ConfigurationError when they will not.

    `variable` is the variable that sets the server's URL. An error reply that only a bug in ChatServer can cause stays
    as it is.
    """
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.AuthorizationError, NoPermissionError) as error:
        raise ConfigurationError(
            f"Redis refuses the credentials in {variable}: {error}",
            remedy=credentials_in(variable),
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable(f"Redis does not answer: {error}", retry_after_s=1.0) from error
    except (ClusterDownError, AskError, TryAgainError) as error:
        raise Unavailable(f"the Redis Cluster is changing: {error}", retry_after_s=1.0) from error
    except (redis.OutOfMemoryError, redis.ReadOnlyError) as error:
        raise Unavailable(f"Redis refuses to write: {error}", retry_after_s=5.0) from error
    except redis.ResponseError as error:
        if not str(error).startswith(("NOREPLICAS", "MISCONF")):  # MISCONF: its disk is full or fails
            raise
        raise Unavailable(f"Redis refuses to write: {error}", retry_after_s=5.0) from error


def wait_for_redis(
    client: redis.Redis,
    say: Callable[[str], object],
    stop: threading.Event | None = None,
    variable: str = URL_VARIABLE,
) -> bool:
    """Block until Redis answers; False only when `stop` was set first, and then at once.

    `say` gets one line for each reason why Redis does not answer, and one when it answers. Raises ConfigurationError
    when Redis refuses the credentials.
    """
    stop = stop or threading.Event()
    reasons: set[str] = set()
    pause_s = FIRST_PAUSE_S
    while not stop.is_set():
        try:
            answered = _ping(client, stop, variable)
        except Unavailable as error:
            if str(error) not in reasons:
                reasons.add(str(error))
                say(f"waiting for Redis at {address_of(client)}: {error}")
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            if answered and reasons:
                say(f"Redis at {address_of(client)} answers")
            return answered
    return False


def _ping(client: redis.Redis, stop: threading.Event, variable: str) -> bool:
    """False when `stop` was set before Redis answered. Raises the errors of `translated`."""
    asked = attempt(client.ping)
    while not futures.wait([asked], timeout=STOP_LOOK_S).done:
        if stop.is_set():
            return False
    with translated(variable):
        asked.result()
    return True
