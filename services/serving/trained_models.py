"""The models that this installation trained: their names, whether they are wanted, and which worker loads them.

    trained = TrainedModels(redis, Keys(settings.namespace))
    model = TrainedModel.from_manifest(Path("runs/july/model"), name="july", job="july", created_s=now_s)
    name = trained.register(model).name       # `july`, or `july-2` when another job has that name
    trained.serve(name)                       # from now on wanted: a standby worker loads it
    find_model(name, trained.find)            # what a worker hands to its engine

The pipelines register models; the command and the job page mark them as wanted; standby workers (`workers/standby.py`)
and `chatserver up` load wanted models. A name never changes its weights: a second model of the same name gets a number.
Nothing expires, except the claim of the worker that loads a model and the reason why loading failed.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import orjson
from redis import Redis

from services.chat.queue import RequestQueue
from services.connection.connect import server_time
from services.connection.scripts import Script
from services.errors import ConfigurationError, InvalidRequest, UnknownModel
from services.models.adapters import is_adapter
from services.models.catalogue import ModelSource, packaged_models, resolve
from services.models.model_folder import ADAPTER, MODEL, read_manifest
from services.serving.registry import Registry
from services.wire.keys import Keys, check_name

CLAIM_TTL_S = 10
TROUBLE_TTL_S = 120
MAX_TROUBLE_CHARS = 2_000
_CLAIM = Script("serving/claim")


@dataclass(frozen=True)
class TrainedModel:
    """One registered model. `path` is its folder or the URL of its bucket; `lineage` is its ancestors, oldest first.

    An adapter is served on its base, the last of its ancestors.
    """

    name: str
    path: str
    base: str
    job: str
    created_s: float
    step: int = 0
    loss: float | None = None
    data: tuple[str, ...] = ()  # SHA-256 of each file it learned from
    lineage: tuple[str, ...] = ()
    manifest: str = ""  # SHA-256 of the manifest; empty: it could not be read where it was registered
    kind: str = MODEL  # or ADAPTER

    @classmethod
    def from_manifest(cls, folder: Path, *, name: str, job: str, created_s: float, path: str = "") -> Self:
        """The model that a finished training wrote into `folder`. `path` is its place for other machines, if another.

        Raises ConfigurationError for a folder that is not complete.
        """
        manifest = read_manifest(folder)
        fields = manifest.fields
        metrics = fields.get("metrics") or {}
        loss = metrics.get("loss")
        return cls(
            name=name,
            path=path or str(folder.resolve()),
            base=str(fields.get("base") or ""),
            job=job,
            created_s=created_s,
            step=int(metrics.get("steps") or 0),
            loss=None if loss is None else float(loss),
            data=tuple(str(each["sha256"]) for each in fields.get("data") or ()),
            manifest=manifest.digest,
            kind=ADAPTER if is_adapter(folder) else MODEL,
        )

    @property
    def is_adapter(self) -> bool:
        return self.kind == ADAPTER

    @property
    def remote(self) -> bool:
        return "://" in self.path

    @property
    def trainable(self) -> bool:
        """Whether a fine-tuning on this machine can begin with it: it is on its disks, and no adapter."""
        return not (self.remote or self.is_adapter)

    def source(self) -> ModelSource:
        """The place of the weights, for an engine. Raises ConfigurationError if they are not whole, or not here."""
        if self.remote:
            raise ConfigurationError(
                f"model {self.name!r} is in a bucket, {self.path}, and not on this disk: start a worker that copies it "
                f"first (`sky jobs launch --env MODEL_FILES={self.path} --env MODEL=~/model "
                f"--env SERVED_NAME={self.name} infra/sky/serve-worker.yaml`, which says what else it needs), or copy "
                f"it here (`{_copy_command(self.path, self.name)}`) and start `chatserver worker --model ./{self.name}`"
            )
        folder = Path(self.path)
        if not folder.is_dir():
            raise ConfigurationError(
                f"model {self.name!r} should be in {self.path}, which is no folder on this machine; mount or copy it "
                f"there, or start the worker where it is"
            )
        read_manifest(folder)
        return replace(resolve(self.path), name=self.name)


@dataclass(frozen=True)
class Claim:
    """The right to load one model. Its holder renews it; `token` names the holder and fences all others."""

    name: str
    token: str


class TrainedModels:
    """The trained models of one installation."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._registry = Registry(redis, keys)

    # -- what there is -------------------------------------------------------------------------------------------

    def register(self, model: TrainedModel) -> TrainedModel:
        """Register a model, once for each job and path. Returns it with its name: `name-2` when `name` is taken."""
        check_name(model.name, "model name")
        models = self.list()
        for known in models:
            if (known.job, known.path) == (model.job, model.path):
                return known
        model = replace(model, lineage=_lineage(model.base, models))
        taken = self._names_of_others(models)
        for number in range(1, len(models) + len(taken) + 1000):
            name = model.name if number == 1 else f"{model.name}-{number}"
            if name in taken:
                continue
            named = replace(model, name=name)
            if self._redis.hsetnx(self._keys.catalogue, name, orjson.dumps(asdict(named))):
                return named
            other = self.find(name)
            if other is not None and (other.job, other.path) == (model.job, model.path):
                return other
        raise AssertionError("there is always a free number")

    def _names_of_others(self, models: Sequence[TrainedModel]) -> set[str]:
        """Whether workers serve, or could serve, another model under this name."""
        announced = {raw.decode() for raw in self._redis.smembers(self._keys.models)}
        return {each.name for each in packaged_models()} | (announced - {each.name for each in models})

    def find(self, name: str) -> TrainedModel | None:
        raw = self._redis.hget(self._keys.catalogue, name)
        return None if raw is None else _model(raw)

    def get(self, name: str) -> TrainedModel:
        """Raises UnknownModel."""
        model = self.find(name)
        if model is None:
            known = ", ".join(each.name for each in self.list()) or "none yet"
            raise UnknownModel(f"no trained model has the name {name!r:.80}; registered: {known}")
        return model

    def list(self) -> Sequence[TrainedModel]:
        """All models, the oldest first."""
        found = [_model(raw) for raw in self._redis.hvals(self._keys.catalogue)]
        return sorted(found, key=lambda model: (model.created_s, model.name))

    def made_by(self, jid: str) -> TrainedModel | None:
        """The model that a job registered last; its adapter, if it registered nothing else."""
        made = [model for model in reversed(self.list()) if model.job == jid]
        return next((model for model in made if not model.is_adapter), next(iter(made), None))

    def remove(self, name: str) -> None:
        """Forget a model that is not served; its folder stays. Raises UnknownModel or InvalidRequest."""
        self.get(name)
        serving = any(worker.model == name for worker in self._registry.workers())
        if serving or self._redis.hexists(self._keys.wanted, name):
            raise InvalidRequest(f"a worker serves model {name!r}; stop it first: `chatserver models stop {name}`")
        if waiting := RequestQueue(self._redis, self._keys, name).length():
            raise InvalidRequest(
                f"{waiting} requests wait for model {name!r}; serve it until they are answered, or let them expire"
            )
        self._redis.hdel(self._keys.catalogue, name)
        self._redis.srem(self._keys.models, name)

    # -- what is wanted ------------------------------------------------------------------------------------------

    def serve(self, name: str) -> TrainedModel:
        """Mark a model as wanted. From now on it accepts questions, which wait until a worker loads it.

        Raises UnknownModel.
        """
        model = self.get(name)
        self._redis.delete(self._keys.trouble(name))
        self._redis.hsetnx(self._keys.wanted, name, server_time(self._redis))
        self._redis.sadd(self._keys.models, name)
        return model

    def stop_serving(self, name: str) -> TrainedModel:
        """Mark a model as no longer wanted: standby workers hand its requests back. Raises UnknownModel."""
        model = self.get(name)
        self._redis.hdel(self._keys.wanted, name)
        return model

    def wanted(self) -> Sequence[TrainedModel]:
        """The wanted models, the longest wanted first."""
        since = {name.decode(): float(at) for name, at in self._redis.hgetall(self._keys.wanted).items()}
        found = [model for name in sorted(since, key=lambda name: (since[name], name)) if (model := self.find(name))]
        return found

    def is_wanted(self, name: str) -> bool:
        return bool(self._redis.hexists(self._keys.wanted, name))

    def unserved(self) -> Sequence[TrainedModel]:
        """The wanted models that no worker serves or loads."""
        wanted = self.wanted()
        served = {worker.model for worker in self._registry.workers()} if wanted else set()
        return [model for model in wanted if model.name not in served and not self.loader(model.name)]

    # -- who loads it --------------------------------------------------------------------------------------------

    def keep_claim(self, claim: Claim) -> bool:
        """Take or renew the right to load a model; False when another worker has it. Call it every few seconds."""
        return bool(_CLAIM(self._redis, [self._keys.claim(claim.name)], claim.token, CLAIM_TTL_S))

    def release(self, claim: Claim) -> None:
        _CLAIM(self._redis, [self._keys.claim(claim.name)], claim.token, 0)

    def loader(self, name: str) -> str:
        """The worker that holds the claim; empty when none does."""
        return (self._redis.get(self._keys.claim(name)) or b"").decode()

    def complain(self, name: str, trouble: str) -> None:
        """Keep for a while the reason why a worker could not load a wanted model."""
        self._redis.set(self._keys.trouble(name), trouble[:MAX_TROUBLE_CHARS].encode(), ex=TROUBLE_TTL_S)

    def trouble(self, name: str) -> str:
        return (self._redis.get(self._keys.trouble(name)) or b"").decode()


def find_model(model: str, registered: Callable[[str], TrainedModel | None]) -> ModelSource:
    """The place of the weights of `model`, as `resolve` finds it. A registered name goes before an equal hub id.

    It calls `registered` (`TrainedModels.find`) only for a name that is not a packaged name, a file or a folder.
    """
    try:
        source = resolve(model)
    except ConfigurationError:
        found = registered(model)
        if found is None:
            raise
        return found.source()
    found = registered(model) if source.kind == "hub" else None
    return found.source() if found else source


def _lineage(base: str, models: Sequence[TrainedModel]) -> tuple[str, ...]:
    """The ancestors of a model trained from `base`, which may be the name or the folder of a registered model."""
    for model in models:
        if base in (model.name, model.path):
            return (*model.lineage, model.name)
    return (base,) if base else ()


def _copy_command(url: str, name: str) -> str:
    tools = {"gs": "gcloud storage rsync -r", "s3": "aws s3 sync"}
    return f"{tools.get(url.partition('://')[0], 'rclone copy')} {url} {name}"


def _model(raw: bytes) -> TrainedModel:
    """The model in a JSON text. Ignores fields that a later version added."""
    fields = orjson.loads(raw)
    known = {name: fields[name] for name in TrainedModel.__dataclass_fields__ if name in fields}
    return TrainedModel(**{**known, "data": tuple(known["data"]), "lineage": tuple(known["lineage"])})
