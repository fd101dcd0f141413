"""Registers the tasks of all kinds of jobs. A worker calls it before it forks, so that its processes share the code."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from redis import Redis

from pipelines.celery.admission import Admission
from pipelines.celery.archive_task import ArchiveTask
from pipelines.celery.batch_tasks import BatchTasks
from pipelines.celery.cleaning_tasks import CleaningTasks
from pipelines.celery.preview_tasks import PreviewTasks
from pipelines.celery.sweep import Sweep
from pipelines.celery.training_tasks import Registering, TrainingTasks
from pipelines.launching.local_target import LocalTarget
from pipelines.launching.registering import register_model
from pipelines.launching.results import publish_results
from pipelines.launching.sky import SkyPilot
from pipelines.launching.sky_target import SkyTarget
from pipelines.launching.targets import Target
from services.chat.requests import Requests
from services.jobs.jobs import Job, Jobs
from services.jobs.previews import Previews
from services.jobs.signature import job_key
from services.jobs.stored_files import StoredFiles
from services.jobs.training_progress import TrainingProgress
from services.settings import Settings
from services.wire.keys import Keys

SECRETS = ("WANDB_API_KEY", "HF_TOKEN")  # passed to what is launched; kept nowhere


def register_tasks(app: Any, redis: Redis, jobs: Jobs, settings: Settings) -> None:
    """Tell Celery all of them."""
    keys, admission = Keys(settings.namespace), Admission.from_settings(settings)
    secrets = {name: value for name in SECRETS if (value := os.environ.get(name))}
    targets: dict[str, Callable[[], Target]] = {
        "local": partial(LocalTarget, secrets=secrets),
        "sky": partial(SkyTarget, SkyPilot()),  # all looks of a process ask one process of SkyPilot's
    }
    register = registering(redis, keys, jobs, settings)
    trainings = TrainingTasks(app, redis, keys, jobs, admission, targets, secrets, register)
    trainings.register()
    PreviewTasks(app, Previews(redis, keys, job_key(settings)), admission, trainings.masked).register()
    cleaning = CleaningTasks(app, redis, keys, jobs, admission)
    cleaning.register()
    batches = BatchTasks(app, redis, keys, jobs, admission, settings)
    batches.register()
    ArchiveTask(app, Requests.from_settings(redis, settings), settings).register()
    Sweep(app, redis, keys, {"clean": cleaning.advance, "train": trainings.send, "batch": batches.send}).register()


def registering(redis: Redis, keys: Keys, jobs: Jobs, settings: Settings) -> Registering:
    """What is done with a finished fine-tuning before its job ends."""
    # What we write ourselves is small: hours of training are not lost for want of the room that uploads leave free.
    files = StoredFiles(settings.state_dir / "files", max_bytes=2**63, reserve_bytes=0)

    def register(job: Job, progress: TrainingProgress) -> str:
        name = register_model(redis, keys, job, progress)
        publish_results(files, job, jobs.points(job.id), progress)
        return name

    return register
