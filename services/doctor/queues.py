"""Checks workers, models and requests in Redis: does every request have a worker?"""

from collections.abc import Iterator

from redis import Redis

from services.chat.queue import RequestQueue
from services.doctor.findings import Finding, note, ok, warning, wrong
from services.serving.overview import model_rows
from services.serving.registry import Registry
from services.wire.keys import VERSION, Keys


def check_workers(redis: Redis, keys: Keys) -> Iterator[Finding]:
    workers = Registry(redis, keys).workers()
    others = [worker for worker in workers if worker.protocol != VERSION]
    for worker in others:
        yield warning(
            f"worker {worker.wid} on {worker.host} speaks protocol {worker.protocol}, this installation {VERSION}: "
            "it does not see new requests",
            "install the same version of ChatServer there and start it again",
        )
    if not workers:
        yield warning("no worker announces itself: no request is answered", "`chatserver worker`, or `chatserver up`")
    elif len(others) < len(workers):
        served = sorted({worker.model for worker in workers if worker.protocol == VERSION})
        yield ok(f"{len(workers) - len(others)} for {', '.join(served)}")


def check_queues(redis: Redis, keys: Keys) -> Iterator[Finding]:
    """Models with requests and no worker for them."""
    able = {worker.model for worker in Registry(redis, keys).workers() if worker.protocol == VERSION}
    rows = model_rows(redis, keys)
    yield from (finding for row in rows if row["name"] not in able for finding in _unserved(row))
    if all(row["name"] in able or not row["queued"] for row in rows):
        yield ok(f"{sum(row['queued'] for row in rows)} request(s) wait, each for a live worker")


def _unserved(row: dict[str, object]) -> Iterator[Finding]:
    name, queued = row["name"], row["queued"]
    if row["trouble"]:
        yield wrong(
            f"model {name} cannot be loaded: {row['trouble']}", f"correct that, or run `chatserver models stop {name}`"
        )
    if not queued:
        return
    said = f"{queued} request(s) wait for model {name}"
    if row["state"] == "loading":
        yield note(f"{said}, which a worker is loading")
    elif row["state"] in ("wanted", "stopped"):
        remedy = f"`chatserver models serve {name}` and a `chatserver worker --standby`"
        yield wrong(f"{said}, which no worker serves", remedy)
    else:
        yield wrong(f"{said}, which no worker serves", f"`chatserver worker` with the model that is served as {name}")


def check_dead_letters(redis: Redis, keys: Keys) -> Iterator[Finding]:
    models = [raw.decode() for raw in redis.smembers(keys.models)]
    counts = {model: RequestQueue(redis, keys, model).dead_length() for model in sorted(models)}
    dead = {model: count for model, count in counts.items() if count}
    if dead:
        listed = ", ".join(f"{count} of {model}" for model, count in dead.items())
        yield warning(
            f"requests were given up: {listed}", "`chatserver dead` says why; then `dead retry` or `dead drop`"
        )
    else:
        yield ok("none")
