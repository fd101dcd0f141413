"""A finished fine-tuning becomes a model that can be served. Called at the end of the job."""

from pathlib import Path

from redis import Redis

from services.jobs.jobs import Job
from services.jobs.training_progress import TrainingProgress
from services.serving.trained_models import TrainedModel, TrainedModels
from services.wire.keys import Keys


def register_model(redis: Redis, keys: Keys, job: Job, progress: TrainingProgress) -> str:
    """The name under which it is known: twice for one job is once. Raises ConfigurationError for a half model."""
    return TrainedModels(redis, keys).register(_model(job, progress)).name


def _model(job: Job, progress: TrainingProgress) -> TrainedModel:
    """From its manifest; for a model in a bucket, which is not read here, from what the program told."""
    out = str(job.spec["out"])
    if "://" not in out and Path(out, "model").is_dir():
        return TrainedModel.from_manifest(Path(out, "model"), name=job.name, job=job.id, created_s=job.started_s)
    return TrainedModel(
        name=job.name,
        path=f"{out}/model",
        base=job.spec["config"]["model"],
        job=job.id,
        created_s=job.started_s,
        step=progress.records,
        loss=progress.loss,
    )
