"""Lists all checks in the order in which their findings are shown. `chatserver doctor` calls it.

    for finding in examine(settings, errors, chosen=True): ...

Checks of this machine run beside those of Redis. The checks of Redis depend on each other: if Redis does not answer, or
takes no writes, the doctor does not look at its contents.
"""

import contextlib
import resource
from collections.abc import Iterator, Sequence
from functools import partial

import redis

from services.connection.connect import connect
from services.connection.embedded import candidates
from services.doctor import (
    accounts,
    cloud,
    database,
    gpu,
    host,
    models,
    pipelines,
    queues,
    redis_access,
    redis_server,
    web,
)
from services.doctor.findings import Check, Finding, begin, collect, note, run, wrong
from services.doctor.redis_access import by_sentinel
from services.doctor.redis_server import Judge, Server, of_all
from services.doctor.settings import check_settings
from services.errors import ConfigurationError
from services.serving.trained_models import TrainedModels
from services.settings import Settings
from services.wire.keys import Keys

SERVER_CHECKS: dict[str, Judge] = {
    "Redis version": redis_server.check_version,
    "Redis settings": redis_server.check_config,
    "Redis persistence": redis_server.check_persistence,
    "Redis eviction": redis_server.check_eviction,
    "Redis memory": redis_server.check_memory,
    "Redis connections": redis_server.check_connections,
    "Redis cluster": redis_server.check_cluster,
}
NOT_LOOKED_AT = Check(
    "queues", lambda: [note("without Redis the doctor cannot see workers, queues, dead letters and pipelines")]
)


def examine(
    settings: Settings, errors: Sequence[ConfigurationError], *, chosen: bool, ask_clouds: bool = False
) -> Iterator[Finding]:
    """Every finding, in order, as soon as it is known. `chosen`: the user has set REDIS_URL."""
    here = begin(_here(settings))
    beside = begin(_beside(settings, ask_clouds=ask_clouds))
    yield from run([Check("settings", lambda: check_settings(settings, errors, chosen=chosen))])
    yield from collect(here)
    yield from _by_redis(settings, chosen=chosen)
    yield from collect(beside)


def _here(settings: Settings) -> list[Check]:
    folder = settings.state_dir
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return [
        Check("packages", host.check_packages),
        Check("open files", lambda: host.check_open_files(files)),
        Check("state folder", lambda: host.check_state_folder(folder)),
        Check("disk", lambda: host.check_disk(folder)),
        Check("state size", lambda: host.check_state_size(folder)),
        Check("database", lambda: database.check_database(settings)),
        Check("accounts", lambda: accounts.check_accounts(settings)),
        Check("page", lambda: web.check_page(web.webapp_folder())),
        Check("engine", lambda: models.check_engine(settings)),
    ]


def _beside(settings: Settings, *, ask_clouds: bool) -> list[Check]:
    """The checks that may take long."""
    return [
        Check("web app", lambda: web.check_port(settings.host, settings.port)),
        Check("GPU", lambda: gpu.check_gpu(lambda: models.weights_here(settings)), gpu.LIMIT_S),
        Check("cloud", lambda: cloud.check_cloud(ask=ask_clouds), cloud.LIMIT_S),
    ]


def _by_redis(settings: Settings, *, chosen: bool) -> Iterator[Finding]:
    """The checks that ask Redis, and that of the model: perhaps only Redis knows its name."""
    try:
        client = connect(settings.redis_url, role="command")
    except ConfigurationError as error:
        message = error.message
        yield from run([Check("Redis", lambda: [wrong(message, "docs/redis.md explains the URLs")])])
        yield from run(_of_model(settings, None))
        return
    with contextlib.closing(client):
        reached = run([Check("Redis", lambda: _reach(client, chosen=chosen))])
        yield from reached
        levels = {finding.level for finding in reached}
        usable = "ok" in levels and "wrong" not in levels
        yield from run(_of_servers(client) if usable else _of_access(client))
        yield from run(_of_model(settings, TrainedModels(client, Keys(settings.namespace)) if usable else None))
        yield from run(_of_contents(client, settings) if usable else [NOT_LOOKED_AT])


def _reach(client: redis.Redis, *, chosen: bool) -> Iterator[Finding]:
    return redis_access.check_reach(client, chosen=chosen, can_start=bool(candidates()))


def _of_access(client: redis.Redis) -> list[Check]:
    return [
        Check("Redis exposure", lambda: redis_access.check_exposure(client)),
        Check("Sentinel", lambda: redis_access.check_sentinels(client)),
    ]


def _of_servers(client: redis.Redis) -> list[Check]:
    return [
        *_of_access(client),
        Check("clock", lambda: redis_access.check_clocks(client)),
        Check("Redis server", lambda: _judged(redis_server.read_servers(client), by_sentinel(client))),
    ]


def _judged(servers: Sequence[Server], sentinel: bool) -> list[Finding]:
    """Each judgement is its own check: a field that a server lacks fails one check only."""
    judges: dict[str, Judge] = {
        **SERVER_CHECKS,
        "Redis replicas": partial(redis_server.check_replicas, by_sentinel=sentinel),
    }
    return run([Check(subject, partial(of_all, servers, judge)) for subject, judge in judges.items()])


def _of_model(settings: Settings, trained: TrainedModels | None) -> list[Check]:
    find = trained.find if trained is not None else _unknown
    return [
        Check("model", lambda: models.check_model(settings, find)),
        Check("memory", lambda: models.check_memory(settings, find, models.free_memory_bytes())),
    ]


def _unknown(name: str) -> None:
    """Stands for the registered models while Redis does not answer."""


def _of_contents(client: redis.Redis, settings: Settings) -> list[Check]:
    keys = Keys(settings.namespace)
    trained = TrainedModels(client, keys)
    return [
        Check("trained models", lambda: models.check_trained(trained.list(), {m.name for m in trained.wanted()})),
        Check("workers", lambda: queues.check_workers(client, keys)),
        Check("queues", lambda: queues.check_queues(client, keys)),
        Check("dead letters", lambda: queues.check_dead_letters(client, keys)),
        Check("pipelines", lambda: pipelines.check_pipelines(client, settings)),
    ]
