"""Checks the pipelines: the beat, Celery's workers, and whether a worker does the submitted jobs."""

import importlib.util
import warnings
from collections.abc import Iterator

from redis import Redis
from redis.exceptions import NoPermissionError

from services.connection.connect import translated
from services.doctor.findings import Finding, note, ok, warning, wrong
from services.errors import ChatServerError
from services.jobs.jobs import Jobs
from services.settings import Settings
from services.wire.keys import Keys

PING_S = 2.0  # workers that are busy answer all the same: the pings have a process of their own
ROLES = {"clean": "worker", "train": "trainings"}  # first word of a Celery worker's name → `chatserver pipelines …`
DONE_BY = {**ROLES, "batch": "trainings"}  # kind of a job → who does it; `batches` does batches, too


def check_pipelines(redis: Redis, settings: Settings) -> Iterator[Finding]:
    """Which processes do jobs, and which unfinished jobs lack one."""
    keys = Keys(settings.namespace)
    try:
        unfinished = [job.kind for job in Jobs(redis, keys).unfinished()]
    except NoPermissionError:
        yield note("this user of Redis sees no jobs, as it should be on a machine that only serves models")
        return
    if importlib.util.find_spec("celery") is None:
        yield note(
            f"celery is not installed here: the doctor cannot ask who does the {len(unfinished)} unfinished job(s)"
        )
        return
    try:
        answering = workers(settings)
    except ChatServerError as error:
        yield wrong(f"the pipelines' messages: {error.message}", "set CHATSERVER_BROKER_URL to a Redis that answers")
        return
    missing = [role for name, role in ROLES.items() if not any(each.startswith(f"{name}-") for each in answering)]
    if not redis.exists(keys.beat):
        missing.append("beat")
    yield from _said(answering, missing, unfinished)


def _said(answering: list[str], missing: list[str], unfinished: list[str]) -> Iterator[Finding]:
    needed = {_doer(kind, answering) for kind in unfinished} | {"beat", "worker"} if unfinished else set()
    lacking = [role for role in missing if role in needed]
    remedy = "start " + " and ".join(f"`chatserver pipelines {role}`" for role in lacking or missing)
    if lacking:
        yield warning(f"{len(unfinished)} job(s) are unfinished, and no {' and no '.join(lacking)} runs", remedy)
    elif missing:
        yield note(f"no {', no '.join(missing)} runs; {len(unfinished)} job(s) are unfinished", f"for jobs: {remedy}")
    else:
        yield ok(f"{', '.join(answering)} and a beat; {len(unfinished)} job(s) are unfinished")


def _doer(kind: str, answering: list[str]) -> str:
    """Who does such a job here, or should."""
    runs_batches = any(name.startswith("batch-") for name in answering)
    return "batches" if kind == "batch" and runs_batches else DONE_BY.get(kind, "worker")


def workers(settings: Settings) -> list[str]:
    """Names of the Celery workers that answer. Raises ConfigurationError, Unavailable."""
    from celery.platforms import SecurityWarning
    from kombu.exceptions import OperationalError

    from services.errors import Unavailable
    from services.jobs.celery_app import broker_client, broker_variable, make_celery

    app = make_celery(settings)
    with broker_client(settings) as broker, translated(broker_variable(settings)):
        if broker is not None:
            broker.ping()  # Celery would ask for ever where nobody answers
    warnings.simplefilter("ignore", SecurityWarning)
    try:
        replies = app.control.ping(timeout=PING_S)
    except (OperationalError, OSError) as error:
        raise Unavailable(f"the broker does not answer: {error}") from None
    return sorted(name for reply in replies for name in reply)
