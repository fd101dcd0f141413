"""The state of the whole installation, for `chatserver status`, the admin page and operators' scripts.

It only reads. Every number comes from Redis, and every age is by the clock of Redis.
"""

from dataclasses import asdict
from typing import Any

from redis import Redis

from services.chat.dead_letters import DeadLetters
from services.chat.journal import Head, Journal
from services.chat.queue import RequestQueue
from services.chat.reader import WaitingState
from services.chat.requests import Requests
from services.connection.cluster import primaries_of
from services.connection.connect import server_time
from services.connection.memory import memory_percent
from services.models.catalogue import packaged_models
from services.serving.registry import ModelInfo, Registry
from services.serving.trained_models import TrainedModels
from services.wire.keys import Keys

MAX_REQUESTS = 200
MAX_DEAD = 20  # newest first; `chatserver dead` lists more


def model_rows(redis: Redis, keys: Keys) -> list[dict[str, Any]]:
    """Every model ever announced or trained, by name, with the load of its workers now.

    `state`: served, loading (a worker loads it), wanted (no worker loads it yet), stopped (trained, and not wanted),
    away (its workers have gone). `trained` describes a trained model, else None.
    """
    return sorted(_rows(redis, keys), key=lambda row: str(row["name"]))


def _rows(redis: Redis, keys: Keys) -> list[dict[str, Any]]:
    """The rows in the order of the registry, then the models that no worker ever announced."""
    trained = TrainedModels(redis, keys)
    known = {model.name: model for model in trained.list()}
    registry = Registry(redis, keys)
    announced = {model.name: model for model in registry.models()}
    wanted = {model.name for model in trained.wanted()}
    rows = []
    for name in [*announced, *(name for name in sorted(known) if name not in announced)]:
        model = announced.get(name) or ModelInfo(name, 0, 0, 0, 0, 0.0, 0)
        loads = registry.is_loading(name) or bool(name in wanted and trained.loader(name))
        state = _state(model, name in known, name in wanted, loads)
        trouble = trained.trouble(name) if state in ("wanted", "loading") else ""
        about = asdict(known[name]) if name in known else None
        rows.append({**_model_row(model), "state": state, "trouble": trouble, "trained": about})
    return rows


def offered_rows(redis: Redis, keys: Keys) -> list[dict[str, Any]]:
    """The models that people may choose: all except trained models that are not wanted. Holds no path.

    The first is the one that answers who chooses none. `demonstration`: a small packaged model, often wrong.
    """
    packaged = {model.name for model in packaged_models()}
    return [
        {name: value for name, value in row.items() if name not in ("trained", "trouble")}
        | {"demonstration": row["name"] in packaged}
        for row in _rows(redis, keys)
        if row["state"] != "stopped"
    ]


def served_names(redis: Redis, keys: Keys) -> list[str]:
    """The models that have a worker now, by name."""
    return sorted({worker.model for worker in Registry(redis, keys).workers()})


def waiting_for(redis: Redis, keys: Keys, model: str) -> WaitingState:
    """What the requests of a model wait for: their turn, a worker that loads the model, or any worker."""
    registry, trained = Registry(redis, keys), TrainedModels(redis, keys)
    if any(worker.model == model for worker in registry.workers()):
        return "queued"
    return "loading" if registry.is_loading(model) or trained.loader(model) else "no_worker"


def _state(model: ModelInfo, trained: bool, wanted: bool, loads: bool) -> str:
    if model.workers:
        return "served"
    if loads:
        return "loading"
    if not trained:
        return "away"
    return "wanted" if wanted else "stopped"


def overview(redis: Redis, keys: Keys, *, max_requests: int = MAX_REQUESTS) -> dict[str, Any]:
    """`{redis, models, workers, requests, requests_in_flight, dead}`; looks at `max_requests` requests at most."""
    registry = Registry(redis, keys)
    now = server_time(redis)
    models = [_queue_row(redis, keys, model) for model in registry.models()]
    return {
        "redis": _server_row(redis),
        "models": models,
        "workers": _worker_rows(registry, now),
        "requests": _request_rows(redis, keys, [model["name"] for model in models], max_requests, now),
        "requests_in_flight": sum(model["in_flight"] for model in models),
        "dead": DeadLetters(redis, Requests(redis, keys)).rows(MAX_DEAD),
    }


def _model_row(model: ModelInfo) -> dict[str, Any]:
    return {**asdict(model), "tokens_per_s": round(model.tokens_per_s, 1)}


def _queue_row(redis: Redis, keys: Keys, model: ModelInfo) -> dict[str, Any]:
    queue = RequestQueue(redis, keys, model.name)
    classes = {name: {**asdict(each), "oldest_s": round(each.oldest_s, 1)} for name, each in queue.classes().items()}
    return {
        **_model_row(model),
        "in_flight": queue.length(),
        "dead": queue.dead_length(),
        "oldest_s": max(each["oldest_s"] for each in classes.values()),
        "classes": classes,
    }


def _worker_rows(registry: Registry, now: float) -> list[dict[str, Any]]:
    return [
        {**asdict(worker), "tokens_per_s": round(worker.tokens_per_s, 1), "age_s": round(max(now - worker.seen, 0), 1)}
        for worker in registry.workers()
    ]


def _request_rows(redis: Redis, keys: Keys, models: list[str], limit: int, now: float) -> list[dict[str, Any]]:
    journal = Journal(redis, keys)
    rows: list[dict[str, Any]] = []
    for model in models:
        for rid in RequestQueue(redis, keys, model).in_flight()[: limit - len(rows)]:
            rows.append({"rid": rid, "model": model, **_head_row(journal.glance(rid), now)})
    return sorted(rows, key=lambda row: -float(row["age_s"]))


def _head_row(head: Head | None, now: float) -> dict[str, Any]:
    if head is None:  # ended and expired, or its state was lost; its reader or its worker will find out
        return {"user": "", "status": "gone", "tokens": 0, "tries": 0, "age_s": 0.0, "wid": ""}
    age_s = round(max(now - head.created_ms / 1000, 0), 1)
    fields = {"user": head.user, "status": head.status, "tokens": head.n, "tries": head.tries}
    return {**fields, "age_s": age_s, "wid": head.wid}


def _server_row(redis: Redis) -> dict[str, Any]:
    """The row of the server; for a cluster, the sum over its primaries."""
    infos = [server.info() for server in primaries_of(redis)]
    valkey = infos[0].get("valkey_version")
    return {
        "server": "Valkey" if valkey else "Redis",
        "version": valkey or infos[0]["redis_version"],
        "primaries": len(infos),
        "clients": sum(info["connected_clients"] for info in infos),
        "used_memory_mib": round(sum(info["used_memory"] for info in infos) / 2**20, 1),
        "memory_percent": memory_percent(redis),
    }
