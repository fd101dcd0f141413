"""The pipelines' processes: `python -m pipelines worker`, `… trainings`, `… batches`, `… beat`, `… flower`, set by the
environment.

`worker` cleans in child processes; `trainings` looks after what other processes compute: it launches fine-tunings and
follows them, and asks the questions of batches; `batches` asks those alone, and needs nothing that trains; `beat` wakes
all of them every few seconds; `flower` shows Celery's workers on a page. Several of each may run. With `--check` each
is its own health probe. On SIGTERM a worker gives its running
units some seconds to end, then hands them back; fine-tunings go on.
"""

import os

os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # read when Celery is imported: SIGTERM re-queues what runs

import logging
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from celery import beat, signals
from celery.apps import worker as celery_worker
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from redis import Redis

from services.connection.connect import connect, translated
from services.errors import ConfigurationError
from services.jobs.celery_app import SOFT_SHUTDOWN_S, SWEEP_S, broker_client, broker_variable, make_celery, num_waiting
from services.jobs.jobs import Jobs
from services.jobs.signature import job_key
from services.program import asked, await_redis, run
from services.settings import Settings, variable_of
from services.wire.keys import BATCHES_QUEUE, SWEEPS_QUEUE, TRAININGS_QUEUE, UNITS_QUEUE, Keys

log = logging.getLogger("chatserver.pipelines")

MOST_PROCESSES = 16
TRAINING_PROCESSES = 4  # some may wait for a cloud, some for the answers of a batch
BATCH_PROCESSES = 2  # batches take turns
CLEAN, TRAIN, BATCH = "clean", "train", "batch"  # what the workers' names in Celery begin with
BEAT_TTL_S = 30
PING_S = 3.0
END_S = SOFT_SHUTDOWN_S + 3.0  # from SIGTERM on: before Docker kills
_safe_say = celery_worker.safe_say
_QUIET = (
    "celery.beat",
    "celery.worker.strategy",
    "celery.app.trace",
    "celery.utils.functional",
    "kombu",
    "botocore",
    "aiobotocore",
)


def serve_worker(settings: Settings) -> None:
    """Run tasks until SIGTERM or SIGINT."""
    num_processes = settings.clean_processes or min(os.cpu_count() or 1, MOST_PROCESSES)
    log_ready = partial(log.info, "cleaning with %d processes", num_processes)
    _work(settings, CLEAN, (UNITS_QUEUE, SWEEPS_QUEUE), num_processes, log_ready)


def serve_trainings(settings: Settings) -> None:
    """Launch and follow fine-tunings and batches until SIGTERM or SIGINT."""
    log_ready = partial(log.info, "looking after fine-tunings and batches")
    _work(settings, TRAIN, (TRAININGS_QUEUE, BATCHES_QUEUE), TRAINING_PROCESSES, log_ready)


def serve_batches(settings: Settings) -> None:
    """Ask the questions of batches until SIGTERM or SIGINT."""
    _work(settings, BATCH, (BATCHES_QUEUE,), BATCH_PROCESSES, partial(log.info, "looking after batches"))


def _work(
    settings: Settings, name: str, queues: Sequence[str], num_processes: int, log_ready: Callable[[], None]
) -> None:
    from pipelines.celery.admission import adopt_older_jobs
    from pipelines.celery.tasks import register_tasks  # not for beat, Flower and the probes, which run no task

    app = _app(settings)
    redis = connect(settings.redis_url, role="worker")
    jobs = Jobs(redis, Keys(settings.namespace), job_key(settings))
    register_tasks(app, redis, jobs, settings)
    _await_servers(settings, redis)
    celery_worker.safe_say = _say_no_threats
    adopt_older_jobs(jobs, settings.state_dir)
    redis.close()  # each process connects by itself
    worker = app.Worker(
        hostname=f"{name}-{os.getpid()}@{socket.gethostname()}",
        queues=list(queues),
        concurrency=num_processes,
        pool_cls="prefork",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    warnings.simplefilter("ignore", CPendingDeprecationWarning)  # a unit outlives its connection on purpose
    signals.worker_ready.connect(lambda **_: log_ready(), weak=False)
    signals.worker_shutting_down.connect(_end_in_time, weak=False)
    worker.start()


def _say_no_threats(message: str, file: Any = sys.__stderr__) -> None:
    """Celery prints at every end that Ctrl+C will terminate all tasks. In truth they are handed back."""
    if file is not sys.__stdout__:
        _safe_say(message, file)


def _end_in_time(**_: Any) -> None:
    """Celery tries for minutes to tell a silent Redis what it has not done; the next sweep finds that anyway."""
    timer = threading.Timer(END_S, _leave)
    timer.daemon = True
    timer.start()


def _leave() -> None:
    log.warning("Redis does not answer; the tasks that were taken are left to the next sweep")
    os._exit(0)


def _await_servers(settings: Settings, redis: Redis) -> None:
    """Celery repeats for ever whatever its broker answers, wrong credentials too; this does not."""
    await_redis(redis, log.warning)
    with broker_client(settings) as broker:
        if broker is not None and settings.broker_url:
            await_redis(broker, log.warning, broker_variable(settings))


def check_worker(settings: Settings) -> str:
    """Empty when a worker of this machine answers, else what is wrong."""
    return _check(settings, CLEAN, "worker")


def check_trainings(settings: Settings) -> str:
    """The same of a worker that looks after fine-tunings."""
    return _check(settings, TRAIN, "trainings")


def check_batches(settings: Settings) -> str:
    """The same of a worker that looks after batches alone."""
    return _check(settings, BATCH, "batches")


def _check(settings: Settings, name: str, role: str) -> str:
    with broker_client(settings) as broker, translated(broker_variable(settings)):
        if broker is not None:
            broker.ping()  # it says at once what is wrong, where Celery would try again and again
    replies = [each for reply in _app(settings).control.ping(timeout=PING_S) for each in reply]
    host = socket.gethostname()
    here = [each for each in replies if each.startswith(f"{name}-") and each.endswith(f"@{host}")]
    return "" if here else f"no pipelines {role} on {host} answers"


class Scheduler(beat.Scheduler):  # type: ignore[misc]  # celery is untyped
    """Beat's schedule, kept in memory. Announces beat, and sends nothing while its last message waits for a worker."""

    def __init__(self, *args: Any, redis: Any, key: str, **options: Any) -> None:
        self._redis, self._key = redis, key
        self._complaint = ""
        super().__init__(*args, **options)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        try:
            self._redis.set(self._key, socket.gethostname(), ex=BEAT_TTL_S)
            if num_waiting(self.app, SWEEPS_QUEUE) == 0:
                self.apply_async(entry, producer=producer, advance=False, retry=False)
        except Exception as error:  # noqa: BLE001  # whatever it is: the next one is due in seconds
            self._tell(f"no sweep is sent: {error}")
        else:
            self._tell("")

    def _tell(self, complaint: str) -> None:
        """What is wrong is said once, and when it is over."""
        if complaint != self._complaint:
            self._complaint = complaint
            log.warning("%s", complaint or "sweeps are sent again")


def serve_beat(settings: Settings) -> None:
    """Send a sweep every few seconds until SIGTERM or SIGINT."""
    app = _app(settings)
    redis = connect(settings.redis_url, role="worker")
    _await_servers(settings, redis)
    scheduler = partial(Scheduler, redis=redis, key=Keys(settings.namespace).beat)
    log.info("a sweep every %g s", SWEEP_S)
    app.Beat(scheduler_cls=scheduler, quiet=True, max_interval=SWEEP_S, loglevel=logging.WARNING).run()


def check_beat(settings: Settings) -> str:
    """Empty when a beat has announced itself, else what is wrong."""
    with connect(settings.redis_url, role="command") as redis:
        return "" if redis.exists(Keys(settings.namespace).beat) else f"no beat in the last {BEAT_TTL_S} s"


def serve_flower(settings: Settings) -> None:
    """Celery's monitor, until SIGTERM or SIGINT. Who opens it can stop workers, so it asks for a login."""
    if not settings.flower_login:
        raise ConfigurationError(f"{variable_of('flower_login')} is empty; set it to USER:PASSWORD")
    with connect(settings.redis_url, role="worker") as redis:
        _await_servers(settings, redis)
    where = (f"--address={settings.host}", f"--port={settings.port}")
    _app(settings).start(["--quiet", "flower", *where, f"--basic-auth={settings.flower_login}", "--logging=WARNING"])


def check_flower(settings: Settings) -> str:
    """Empty when Flower answers here, else what is wrong."""
    return asked(f"http://127.0.0.1:{settings.port}/healthcheck", PING_S)


def _app(settings: Settings) -> Any:
    warnings.simplefilter("ignore", SecurityWarning)  # messages are JSON, so root is no wider door
    signals.setup_logging.connect(_keep_logging, weak=False)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return make_celery(settings)


def _keep_logging(**_: Any) -> None:
    """Celery configures no log when somebody else says they do: services/logs.py has."""


ROLES: dict[str, tuple[Callable[[Settings], None], Callable[[Settings], str], str]] = {  # and its name in log lines
    "worker": (serve_worker, check_worker, CLEAN),
    "trainings": (serve_trainings, check_trainings, TRAIN),
    "batches": (serve_batches, check_batches, BATCH),
    "beat": (serve_beat, check_beat, "beat"),
    "flower": (serve_flower, check_flower, "flower"),
}


def main() -> int:
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role not in ROLES:
        print(f"pipelines: {role!r} is not one of {', '.join(ROLES)}", file=sys.stderr)
        return 2
    del sys.argv[1]
    serve, check, process = ROLES[role]
    return run(f"pipelines {role}", serve, check, process=process)


if __name__ == "__main__":
    sys.exit(main())
