"""The loop on people's judgement: votes → pairs → DPO by the real training program → the model is wanted."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from services.database.database import Database
from services.database.schema import migrate
from services.places import ROOT
from services.serving.trained_models import TrainedModels
from services.settings import load_settings
from tests.pipelines.celery.training_processes import Trainings, running_trainings
from tests.pipelines.training.runs import Material
from tests.services.judgements.people import People


@pytest.fixture
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with running_trainings(tmp_path_factory.mktemp("improves"), program="pipelines") as system:
        system.environment.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
        system.all_roles()
        yield system


def improve(system: Trainings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.command", "improve", *arguments]
    options = {"cwd": ROOT, "env": system.environment, "capture_output": True, "text": True, "timeout": 300}
    return subprocess.run(command, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_votes_become_a_model_that_is_served_by_one_command(
    trainings: Trainings, material: Material, tmp_path: Path
) -> None:
    database = Database.of(load_settings(trainings.environment))
    migrate(database)
    people = People(database)
    for number in range(6):
        people.battle(f"b{number}", f"Question {number}?", f"A good answer {number}.", f"A bad one {number}.", "left")
    preset = tmp_path / "preferences.yaml"
    fields = {**yaml.safe_load(material.config.read_text()), "epochs": 1.0, "objective": "dpo", "packing": None}
    fields["tokens_per_step"] = max(fields["tokens_per_step"], 2 * fields["seq_len"])
    preset.write_text(yaml.safe_dump({name: value for name, value in fields.items() if value is not None}))

    refused = improve(trainings, "--preset", str(preset))
    assert refused.returncode != 0 and "6 pairs of answers; 20 are needed" in refused.stderr

    done = improve(trainings, "--preset", str(preset), "--min-pairs", "6", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 pairs of answers" in done.stdout
    trained = TrainedModels(trainings.redis, trainings.keys)
    (model,) = trained.list()
    assert [each.name for each in trained.wanted()] == [model.name], "it is served without another command"
    job = trainings.jobs.get(model.job)
    assert (job.state, job.spec["config"]["objective"]) == ("finished", "dpo")
    again = improve(trainings, "--preset", str(preset), "--min-pairs", "6")
    assert "it learnt these very judgements" in again.stdout, again.stdout + again.stderr
