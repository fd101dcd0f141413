"""The training program itself, sent through Celery to this machine: killed, resumed, finished, registered."""

import signal
from collections.abc import Iterator

import pytest
import yaml

from pipelines.launching.local_target import signal_all, supervisors
from pipelines.launching.targets import run_name
from services.jobs.training import checked_training
from services.jobs.training_jobs import Place, training_spec
from services.serving.trained_models import TrainedModels
from tests.end_to_end.system import wait_until
from tests.pipelines.celery.training_processes import Trainings, running_trainings
from tests.pipelines.training.runs import Material

SMALL = {"epochs": 3.0, "save_steps": 2}


@pytest.fixture
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with running_trainings(tmp_path_factory.mktemp("program"), program="pipelines") as system:
        system.environment.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
        system.all_roles()
        yield system


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_killed_fine_tuning_goes_on_and_its_model_is_registered(
    trainings: Trainings, material: Material, num_devices: int
) -> None:
    fields = {**yaml.safe_load(material.config.read_text()), **SMALL}
    place = Place(num_devices=num_devices)
    spec = training_spec(checked_training(fields), [str(material.data)], str(trainings.folder / "real"), place)
    trainings.jobs.submit("real", "train", "tiny", spec)
    wait_until(lambda: trainings.progress("real").checkpoints, "a checkpoint", 120)
    name = run_name("real", trainings.jobs.get("real").started_s)
    trainings.names.add(name)
    signal_all(supervisors(name), signal.SIGKILL)
    job = trainings.ended("real", 170)
    assert job.state == "finished", (job.error, trainings.lines("real")[-20:])
    progress = trainings.progress("real")
    assert progress.outcome["recoveries"] == 1 and progress.resumes
    steps = [point["step"] for point in trainings.jobs.points("real")]
    assert steps == list(range(1, progress.of + 1)) and progress.records == progress.of
    model = TrainedModels(trainings.redis, trainings.keys).get("tiny")
    assert (model.job, model.step) == ("real", progress.of) and model.manifest
