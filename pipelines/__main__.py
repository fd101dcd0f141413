"""The pipelines' processes: `python -m pipelines worker` and `… beat`. Settings come from the environment.

`worker` runs the tasks in processes of its own, `beat` wakes it every few seconds; several of both do no harm. With
`--check` each is its own health probe. On SIGTERM a worker gives its running units some seconds to end, then hands
them back.
"""

import os

os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # read when Celery is imported: SIGTERM re-queues what runs

import logging
import socket
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import beat, signals
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning

from pipelines.tasks import CleaningTasks
from services.celery_app import SWEEP_S, make_celery, num_waiting
from services.connection import connect, wait_for_redis
from services.program import run
from services.protocol import SWEEPS_QUEUE, Keys
from services.settings import Settings

log = logging.getLogger("chatserver.pipelines")

MOST_PROCESSES = 16
BEAT_TTL_S = 30
PING_S = 3.0
_QUIET = ("celery.beat", "celery.worker.strategy", "celery.app.trace", "celery.utils.functional", "kombu")


def serve_worker(settings: Settings) -> None:
    """Run tasks until SIGTERM or SIGINT."""
    app = _app(settings)
    redis = connect(settings.redis_url, role="worker")
    CleaningTasks(app, redis, Keys(settings.namespace)).register()
    num_processes = settings.clean_processes or min(os.cpu_count() or 1, MOST_PROCESSES)
    wait_for_redis(redis, log.warning)
    redis.close()  # each process connects by itself
    worker = app.Worker(
        hostname=f"clean-{os.getpid()}@{socket.gethostname()}",
        concurrency=num_processes,
        pool_cls="prefork",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    warnings.simplefilter("ignore", CPendingDeprecationWarning)  # a unit outlives its connection on purpose
    signals.worker_ready.connect(lambda **_: log.info("cleaning with %d processes", num_processes), weak=False)
    worker.start()


def check_worker(settings: Settings) -> str:
    """Empty when a worker of this machine answers, else what is wrong."""
    replies = _app(settings).control.ping(timeout=PING_S)
    here = [name for reply in replies for name in reply if name.endswith(f"@{socket.gethostname()}")]
    return "" if here else f"no pipelines worker on {socket.gethostname()} answers"


class Scheduler(beat.Scheduler):  # type: ignore[misc]  # celery is untyped
    """Keeps its schedule in memory, announces itself, and sends nothing while its last message waits for a worker."""

    def __init__(self, *args: Any, redis: Any, key: str, **options: Any) -> None:
        self._redis, self._key = redis, key
        super().__init__(*args, **options)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        try:
            self._redis.set(self._key, socket.gethostname(), ex=BEAT_TTL_S)
            if num_waiting(self.app, SWEEPS_QUEUE) == 0:
                self.apply_async(entry, producer=producer, advance=False, retry=False)
        except Exception as error:  # noqa: BLE001  # whatever it is: the next one is due in seconds
            log.warning("no sweep was sent: %s", error)


def serve_beat(settings: Settings) -> None:
    """Send a sweep every few seconds until SIGTERM or SIGINT."""
    app = _app(settings)
    redis = connect(settings.redis_url, role="worker")
    wait_for_redis(redis, log.warning)
    scheduler = partial(Scheduler, redis=redis, key=Keys(settings.namespace).beat)
    log.info("a sweep every %g s", SWEEP_S)
    app.Beat(scheduler_cls=scheduler, quiet=True, max_interval=SWEEP_S, loglevel=logging.WARNING).run()


def check_beat(settings: Settings) -> str:
    """Empty when a beat has announced itself, else what is wrong."""
    with connect(settings.redis_url, role="command") as redis:
        return "" if redis.exists(Keys(settings.namespace).beat) else f"no beat in the last {BEAT_TTL_S} s"


def _app(settings: Settings) -> Any:
    warnings.simplefilter("ignore", SecurityWarning)  # messages are JSON, so root is no wider door
    signals.setup_logging.connect(_keep_logging, weak=False)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return make_celery(settings)


def _keep_logging(**_: Any) -> None:
    """Celery configures no log when somebody else says they do: services/logs.py has."""


ROLES: dict[str, tuple[Callable[[Settings], None], Callable[[Settings], str]]] = {
    "worker": (serve_worker, check_worker),
    "beat": (serve_beat, check_beat),
}


def main() -> int:
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role not in ROLES:
        print(f"pipelines: {role!r} is not one of {', '.join(ROLES)}", file=sys.stderr)
        return 2
    del sys.argv[1]
    return run(f"pipelines {role}", *ROLES[role])


if __name__ == "__main__":
    sys.exit(main())
