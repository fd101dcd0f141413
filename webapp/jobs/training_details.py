"""The fields of a fine-tuning that other jobs lack, for the job page. `routes.py` calls it; it asks Redis only."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from services.jobs.jobs import Job, Jobs
from services.jobs.training_progress import UNIT, TrainingProgress
from services.serving.registry import Registry
from services.serving.trained_models import TrainedModel, TrainedModels

MAX_RATED = 20


class TrainingAnswers:
    """Reads the progress of fine-tunings, the registered models, and the workers that serve them."""

    def __init__(self, jobs: Jobs, trained: TrainedModels, registry: Registry) -> None:
        self._jobs = jobs
        self._trained = trained
        self._registry = registry

    def of(self, job: Job, after_step: int) -> dict[str, Any]:
        """`{training}`, with the points of the loss curve after a step."""
        progress = TrainingProgress.from_note(self._jobs.units(job.id).get(UNIT, {}))
        model = self.model_of(job)
        return {
            "training": {
                **{name: value for name, value in asdict(progress).items() if name not in ("state", "outcome")},
                "stopping": progress.stopping if job.cancelling else "",
                "config": self._config(job),
                "data": [str(name) for name in job.spec.get("data", ())],
                "out": str(job.spec.get("out", "")),
                "points": self._jobs.points(job.id, after_step),
                "remote": {**_place(job), **progress.outcome},
                "serving": None if model is None else self.serving(model),
            }
        }

    def rates(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """`{model, method, on, tokens_per_s}` of the newest fine-tunings, newest first, each model and place once."""
        found: dict[tuple[Any, ...], float] = {}
        for job in [job for job in jobs if job.kind == "train"][:MAX_RATED]:
            config = self._config(job)
            key = (config.get("model"), config.get("method"), job.spec.get("on"))
            rate = TrainingProgress.from_note(self._jobs.units(job.id).get(UNIT, {})).tokens_per_s
            if rate:
                found.setdefault(key, rate)
        return [
            dict(zip(("model", "method", "on", "tokens_per_s"), (*key, rate), strict=True))
            for key, rate in found.items()
        ]

    def _config(self, job: Job) -> dict[str, Any]:
        """The base model as it was ordered; a registered model by its name, not by its folder."""
        config = dict(job.spec.get("config", {}))
        names = {model.path: model.name for model in self._trained.list()}
        return {**config, "model": names.get(str(config.get("model")), config.get("model"))}

    def model_of(self, job: Job) -> TrainedModel | None:
        return self._trained.made_by(job.id)

    def serving(self, model: TrainedModel) -> dict[str, Any]:
        """Whether the model is wanted, which worker loads or serves it, and why loading failed."""
        return {
            "name": model.name,
            "path": model.path,
            "kind": model.kind,
            "adapter": self._adapter_beside(model),
            "lineage": list(model.lineage),
            "wanted": self._trained.is_wanted(model.name),
            "loading": bool(self._trained.loader(model.name)),
            "workers": sum(worker.model == model.name for worker in self._registry.workers()),
            "trouble": self._trained.trouble(model.name),
        }

    def _adapter_beside(self, model: TrainedModel) -> str:
        """The name of the adapter that the same fine-tuning left unmerged; empty if there is none."""
        others = (each for each in self._trained.list() if each.is_adapter and each.name != model.name)
        return next((each.name for each in others if each.job == model.job), "")


def _place(job: Job) -> dict[str, Any]:
    """The place where the fine-tuning was ordered to run."""
    return {name: job.spec.get(name) for name in ("on", "spot", "infra", "num_devices", "num_nodes")}
