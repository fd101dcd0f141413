"""How every process of ours talks to Redis: one connection policy, one translation of its errors.

No library retries anywhere. A command repeated by the client library after a lost reply may acknowledge what the new
incarnation of Redis has forgotten; our scripts are idempotent, and their callers decide what to repeat.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.errors import ConfigurationError, Unavailable

Role = Literal["worker", "web", "command", "test"]

CONNECT_TIMEOUT_S = 5.0
SOCKET_TIMEOUT_S = 10.0  # longer than any BLOCK we use, which are 1 s at most
HEALTH_CHECK_S = 15
MAX_CONNECTIONS = 64  # of one process; who finds none free waits for one, where redis-py's default pool would refuse
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0


def connect(url: str, *, role: Role) -> redis.Redis:
    """A thread-safe client that answers in bytes; it connects at the first command. Raises ConfigurationError."""
    try:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=SOCKET_TIMEOUT_S,
            protocol=2,
            decode_responses=False,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=HEALTH_CHECK_S,
            retry=Retry(NoBackoff(), 0),
            client_name=f"chatserver-{role}-{socket.gethostname()}-{os.getpid()}".replace(" ", "_"),
        )
        return redis.Redis.from_pool(pool)
    except ValueError as error:
        raise ConfigurationError(f"REDIS_URL is not usable: {error}. Example: redis://127.0.0.1:6379/0") from None


def address_of(client: redis.Redis) -> str:
    """Where a client connects to, for messages: never with the password."""
    options = client.connection_pool.connection_kwargs
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


@contextmanager
def translated() -> Iterator[None]:
    """Errors of Redis become ours: Unavailable when it may pass, ConfigurationError when it will not.

    An error reply that only a bug of ours can cause stays what it is.
    """
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
        raise ConfigurationError(f"Redis refuses the credentials in REDIS_URL: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable(f"Redis does not answer: {error}", retry_after_s=1.0) from error
    except (redis.OutOfMemoryError, redis.ReadOnlyError, redis.exceptions.ClusterDownError) as error:
        raise Unavailable(f"Redis refuses to write: {error}", retry_after_s=5.0) from error


def wait_for_redis(client: redis.Redis, say: Callable[[str], object], stop: threading.Event | None = None) -> bool:
    """Block until Redis answers; False only when `stop` was set first.

    `say` gets one line when Redis is missing, one when the reason changes and one when it answers after all. Raises
    ConfigurationError when it refuses our credentials.
    """
    stop = stop or threading.Event()
    reason, pause_s = "", FIRST_PAUSE_S
    while not stop.is_set():
        try:
            with translated():
                client.ping()
        except Unavailable as error:
            if str(error) != reason:
                reason = str(error)
                say(f"waiting for Redis at {address_of(client)}: {reason}")
        else:
            if reason:
                say(f"Redis at {address_of(client)} answers")
            return True
        stop.wait(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    return False
