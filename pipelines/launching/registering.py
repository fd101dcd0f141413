"""What a finished fine-tuning made becomes models that can be served. Called at the end of the job."""

from pathlib import Path

from redis import Redis

from services.jobs.jobs import Job
from services.jobs.training_jobs import spec_config
from services.jobs.training_progress import TrainingProgress
from services.models.model_folder import ADAPTER
from services.serving.trained_models import TrainedModel, TrainedModels
from services.wire.keys import Keys


def register_model(redis: Redis, keys: Keys, job: Job, progress: TrainingProgress) -> str:
    """The name under which the result is known, of two that of the whole model: twice for one job is once.

    A job whose spec says `serve` has its model wanted from now on. Raises ConfigurationError for a half model.
    """
    trained, made = TrainedModels(redis, keys), _made(job)
    name = [trained.register(_model(job, progress, kind, alone=len(made) == 1)).name for kind in made][-1]
    if job.spec.get("serve"):
        trained.serve(name)
    return name


def _made(job: Job) -> list[str]:
    """The folders of the results. An older build left no adapter, whatever the configuration says today."""
    out, results = str(job.spec["out"]), spec_config(job.spec).results
    return [kind for kind in results[:-1] if "://" in out or Path(out, kind).is_dir()] + [results[-1]]


def _model(job: Job, progress: TrainingProgress, kind: str, *, alone: bool) -> TrainedModel:
    """From its manifest; for a model in a bucket, which is not read here, from what the program told."""
    out, name = str(job.spec["out"]), job.name if alone or kind != ADAPTER else f"{job.name}-{ADAPTER}"
    if "://" not in out and Path(out, kind).is_dir():
        return TrainedModel.from_manifest(Path(out, kind), name=name, job=job.id, created_s=job.started_s)
    return TrainedModel(
        name=name,
        path=f"{out}/{kind}",
        base=job.spec["config"]["model"],
        job=job.id,
        created_s=job.started_s,
        step=progress.records,
        loss=progress.loss,
        kind=kind,
    )
