"""Celery on Redis: one configuration for the senders of tasks (web app, command) and for the pipelines that run them.

    app = make_celery(settings)
    jobs.submit(...)
    wake(app, jid)

A message is only a wake-up. The job and its folder say what is to do (`services/jobs/jobs.py`, `pipelines/celery/`), so
messages may be lost, repeated and late. The app connects at its first send.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from redis import Redis
from redis.connection import SSLConnection
from redis.exceptions import RedisError
from redis.sentinel import SentinelConnectionPool

from services.connection.cluster import Cluster
from services.connection.connect import CONNECT_TIMEOUT_S, HEALTH_CHECK_S, SOCKET_TIMEOUT_S, connect
from services.errors import ConfigurationError
from services.settings import Settings, variable_of
from services.wire.keys import (
    ADVANCE_TASK,
    ARCHIVE_TASK,
    BATCH_TASK,
    BATCHES_QUEUE,
    PREVIEW_TASK,
    SWEEP_TASK,
    SWEEPS_QUEUE,
    TRAIN_TASK,
    TRAININGS_QUEUE,
    UNIT_TASK,
    UNITS_QUEUE,
    Keys,
)

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger("chatserver.pipelines")

ARCHIVE_S = 60.0  # web processes archive within a second; this is for hours in which none runs
SWEEP_S = 3.0  # the longest that dead work lies before somebody sees it
# After this time Redis hands out again what a worker took and did not acknowledge. Nothing waits for it: the sweep sees
# that the worker's lock is free. A task that runs longer is delivered again, finds its unit locked, and returns.
VISIBILITY_TIMEOUT_S = 3600
SOFT_SHUTDOWN_S = 4.0  # Docker kills 10 s after SIGTERM: time for a unit to end, then for the messages to go back
OURS = ("redis://", "rediss://", "unix://", "redis+", "rediss+")


def make_celery(settings: Settings) -> "Celery":
    """The Celery app of one installation. Raises ConfigurationError for a broker that Celery cannot use."""
    from celery import Celery  # here: a web process of which nobody orders a job starts sooner
    from kombu import Queue

    url, options = _broker(settings)
    transport = {
        "global_keyprefix": Keys(settings.namespace).celery,
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,  # a publish on a dead link would wait for ever
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_S,
        **options.pop("broker_transport_options", {}),
    }
    app = Celery("chatserver", set_as_current=False)
    app.conf.update(
        broker_url=url,
        broker_transport_options=transport,
        result_backend_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_S},
        visibility_timeout=VISIBILITY_TIMEOUT_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_ignore_result=True,  # the job says how it went
        task_serializer="json",
        accept_content=["json"],
        task_queues=[Queue(UNITS_QUEUE), Queue(SWEEPS_QUEUE), Queue(TRAININGS_QUEUE), Queue(BATCHES_QUEUE)],
        task_default_queue=UNITS_QUEUE,
        task_create_missing_queues=False,
        task_routes={
            SWEEP_TASK: {"queue": SWEEPS_QUEUE},
            ARCHIVE_TASK: {"queue": SWEEPS_QUEUE},
            ADVANCE_TASK: {"queue": SWEEPS_QUEUE},
            UNIT_TASK: {"queue": UNITS_QUEUE},
            TRAIN_TASK: {"queue": TRAININGS_QUEUE},
            PREVIEW_TASK: {"queue": TRAININGS_QUEUE},
            BATCH_TASK: {"queue": BATCHES_QUEUE},
        },
        task_acks_late=True,
        task_reject_on_worker_lost=True,  # a unit whose process dies again and again is given up: cleaning_tasks.py
        worker_prefetch_multiplier=1,
        # A unit goes on while Redis is away: its work is in its folder, and who gets its message again finds it locked.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,  # with the line above it would leave processes idle after a break
        worker_soft_shutdown_timeout=SOFT_SHUTDOWN_S,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        beat_schedule={
            "sweep": {"task": SWEEP_TASK, "schedule": SWEEP_S},
            "archive": {"task": ARCHIVE_TASK, "schedule": ARCHIVE_S},
        },
        **options,
    )
    return app


def ask_preview(app: "Celery", pid: str) -> None:
    """Tell the pipelines that somebody waits for a preview. Raises what the broker's client raises."""
    app.send_task(PREVIEW_TASK, [pid], retry=False)


def wake(app: "Celery", jid: str) -> None:
    """Tell the pipelines that there is a job. Tries once and never raises: they also find the job by themselves."""
    from kombu.exceptions import OperationalError

    try:
        app.send_task(ADVANCE_TASK, [jid], retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("the pipelines got no wake-up; they will find the job by themselves: %s", error, extra={"job": jid})


@contextlib.contextmanager
def broker_client(settings: Settings) -> Iterator[Redis | None]:
    """A client of the Redis that carries the messages; None for a URL in kombu's own form. It opens no connection."""
    url = settings.broker_url or settings.redis_url
    if not url.startswith(OURS) or url.startswith("redis+socket://"):
        yield None
        return
    with contextlib.closing(connect(url, role="command", variable=broker_variable(settings))) as client:
        yield client


def broker_variable(settings: Settings) -> str:
    """The variable that sets the broker's URL."""
    return variable_of("broker_url" if settings.broker_url else "redis_url")


def num_waiting(app: "Celery", queue: str) -> int:
    """The number of messages in a queue that no worker has taken."""
    with app.connection_for_write() as connection, connection.channel() as channel:
        return int(channel.queue_declare(queue).message_count)


def _broker(settings: Settings) -> tuple[str, dict[str, Any]]:
    """The URL in kombu's form, and the settings that go with it."""
    with broker_client(settings) as client:
        if client is None:
            return settings.broker_url or settings.redis_url, {}
        if isinstance(client, Cluster):
            raise ConfigurationError(
                f"{broker_variable(settings)} names a Redis Cluster, which Celery cannot use: set "
                f"{variable_of('broker_url')} to a single Redis for the pipelines' messages, such as "
                "redis://127.0.0.1:6379/1"
            )
        return _in_kombus_words(client.connection_pool)


def _in_kombus_words(pool: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(pool, SentinelConnectionPool):
        return _behind_sentinel(pool)
    found = pool.connection_kwargs
    if "path" in found:
        return f"redis+socket://{_login(found)}{found['path']}?virtual_host={found.get('db', 0)}", {}
    tls = issubclass(pool.connection_class, SSLConnection)
    where = f"{_login(found)}{_host(found.get('host', 'localhost'))}:{found.get('port', 6379)}/{found.get('db', 0)}"
    return f"{'rediss' if tls else 'redis'}://{where}", _tls(found) if tls else {}


def _behind_sentinel(pool: Any) -> tuple[str, dict[str, Any]]:
    found, manager = pool.connection_kwargs, pool.sentinel_manager
    nodes = [each.connection_pool.connection_kwargs for each in manager.sentinels]
    url = ";".join(f"sentinel://{_login(found)}{_host(n['host'])}:{n['port']}/{found.get('db', 0)}" for n in nodes)
    transport = {"master_name": pool.service_name, "sentinel_kwargs": manager.sentinel_kwargs}
    tls = issubclass(pool.connection_class, SSLConnection)
    return url, {"broker_transport_options": transport, **(_tls(found) if tls else {})}


def _tls(found: dict[str, Any]) -> dict[str, Any]:
    """Check certificates unless the URL says otherwise. Kombu checks none by default."""
    given = {name: value for name, value in found.items() if name.startswith("ssl_")}
    return {"broker_use_ssl": {"ssl_cert_reqs": "required", **given}}


def _login(found: dict[str, Any]) -> str:
    user, password = (quote(found.get(name) or "", safe="") for name in ("username", "password"))
    return f"{user}:{password}@" if user or password else ""


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
