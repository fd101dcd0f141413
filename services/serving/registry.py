"""Which worker serves which model: each worker renews its presence, a key that expires. No controller is needed.

People and pages see presence. It never decides which worker gets a request (workers pull), nor which worker lost one
(leases do).
"""

from dataclasses import asdict, dataclass, field, replace

import orjson
from redis import Redis

from services.chat.queue import RequestQueue
from services.connection.connect import server_time
from services.connection.scripts import Script
from services.models.catalogue import packaged_models
from services.wire.keys import VERSION, Keys
from services.wire.messages import SamplingDefaults

TTL_S = 5
_PRESENCE, _ADD = Script("serving/presence"), Script("serving/add")


@dataclass(frozen=True)
class WorkerInfo:
    """One worker's last presence. `seen` is by the clock of Redis, `started` by the worker's own clock."""

    wid: str
    model: str
    engine: str
    slots: int
    running: int
    tokens_per_s: float
    context_tokens: int
    host: str
    pid: int
    started: float
    seen: float = 0.0
    protocol: int = VERSION
    sampling: str = ""  # JSON of SamplingDefaults; empty from a worker that samples every model alike
    supports: str = ""  # what a request may carry, with spaces between; empty from workers that announce nothing
    version: str = ""  # of the worker's build; empty from builds that do not say it
    memory_mib: int = 0  # of the worker's machine, without a GPU's; 0: unknown


@dataclass(frozen=True)
class ModelInfo:
    """The sum over all workers of one model. `queued` counts the requests that no worker has.

    `supports`: the sampling options that all its workers can set, and of `thinking` (the model's template has a
    switch), `tools` (it writes tools, and its calls are understood), `continue_final` and `prompt` those that all of
    them understand.
    """

    name: str
    workers: int
    slots: int
    running: int
    queued: int
    tokens_per_s: float
    context_tokens: int
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    supports: tuple[str, ...] = ()
    started: float = 0.0  # of the worker that serves it the longest, by that worker's clock


class Registry:
    """The presence of all workers of one installation."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    def announce(self, info: WorkerInfo) -> None:
        """Renew a worker's presence. A worker calls it every second or two."""
        info = replace(info, seen=server_time(self._redis))
        fields: list[str | int | float] = []
        for name, value in asdict(info).items():
            fields += [name, value]
        _ADD(self._redis, [self._keys.models], "SADD", info.model)  # first: whoever sees the worker may ask it
        _ADD(self._redis, [self._keys.workers], "ZADD", info.seen, info.wid)
        _PRESENCE(self._redis, [self._keys.worker(info.wid)], TTL_S, *fields)

    def announce_loading(self, model: str) -> bool:
        """Renew the sign that a worker loads a model; whether nobody knew its name before.

        It comes before presence, which says that the worker can answer.
        """
        _ADD(self._redis, [self._keys.loading(model)], "SET", 1, "EX", TTL_S)
        return bool(_ADD(self._redis, [self._keys.models], "SADD", model))

    def forget_loading(self, model: str, *, name_too: bool) -> None:
        """The model could not be loaded; with `name_too`, nobody shall be able to ask for it."""
        self._redis.delete(self._keys.loading(model))
        if name_too:
            self._redis.srem(self._keys.models, model)

    def is_loading(self, model: str) -> bool:
        return bool(self._redis.exists(self._keys.loading(model)))

    def leave(self, wid: str) -> None:
        self._redis.delete(self._keys.worker(wid))
        self._redis.zrem(self._keys.workers, wid)

    def workers(self) -> list[WorkerInfo]:
        """The workers that live, by id. Forgets ids whose presence expired an hour ago."""
        self._redis.zremrangebyscore(self._keys.workers, "-inf", server_time(self._redis) - 3600)
        found = []
        for raw in self._redis.zrange(self._keys.workers, 0, -1):
            fields = self._redis.hgetall(self._keys.worker(raw.decode()))
            worker = _worker({name.decode(): value.decode() for name, value in fields.items()})
            if worker is not None:
                found.append(worker)
        return sorted(found, key=lambda worker: worker.wid)

    def models(self) -> list[ModelInfo]:
        """Every model that has or had a worker. The first is the one that answers who chooses none."""
        serving: dict[str, list[WorkerInfo]] = {raw.decode(): [] for raw in self._redis.smembers(self._keys.models)}
        for worker in self.workers():
            serving.setdefault(worker.model, []).append(worker)
        return [self._model(name, workers) for name, workers in sorted(serving.items(), key=_turn_of_default)]

    def sampling(self, model: str) -> SamplingDefaults:
        """What applies in this model where a request leaves an option open."""
        return _sampling_of([worker for worker in self.workers() if worker.model == model])

    def supports(self, model: str) -> tuple[str, ...] | None:
        """What a request for this model may carry; None while no worker serves it."""
        workers = [worker for worker in self.workers() if worker.model == model]
        return _supported_by(workers) if workers else None

    def _model(self, name: str, workers: list[WorkerInfo]) -> ModelInfo:
        return ModelInfo(
            name,
            len(workers),
            sum(worker.slots for worker in workers),
            sum(worker.running for worker in workers),
            RequestQueue(self._redis, self._keys, name).num_waiting(),
            sum(worker.tokens_per_s for worker in workers),
            max((worker.context_tokens for worker in workers), default=0),
            _sampling_of(workers),
            _supported_by(workers),
            min((worker.started for worker in workers), default=0.0),
        )


def _turn_of_default(served: tuple[str, list[WorkerInfo]]) -> tuple[bool, bool, float, str]:
    """A model with workers goes first, a demonstration after all others, then what is served the longest."""
    name, workers = served
    demonstrates = name in (packaged.name for packaged in packaged_models())
    return not workers, demonstrates, min((worker.started for worker in workers), default=0.0), name


def _sampling_of(workers: list[WorkerInfo]) -> SamplingDefaults:
    """As the first worker says; another value only for a moment, when a model is replaced."""
    raw = next((worker.sampling for worker in workers if worker.sampling), "{}")
    try:
        said = orjson.loads(raw)
        return SamplingDefaults(**{name: said[name] for name in SamplingDefaults.__dataclass_fields__ if name in said})
    except (TypeError, ValueError):
        return SamplingDefaults()


def _supported_by(workers: list[WorkerInfo]) -> tuple[str, ...]:
    """What all workers support: any of them may take a request."""
    announced = [set(worker.supports.split()) for worker in workers]
    return tuple(sorted(set.intersection(*announced))) if announced else ()


def _worker(fields: dict[str, str]) -> WorkerInfo | None:
    """One worker's presence; None when it has expired, or when another version wrote it with other fields."""
    kinds = WorkerInfo.__annotations__
    try:
        return WorkerInfo(**{name: kinds[name](value) for name, value in fields.items() if name in kinds})
    except (TypeError, ValueError):
        return None
