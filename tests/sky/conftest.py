"""The lab, once for all tests, and over it our pipelines as real processes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.jobs.celery_app import make_celery, wake
from services.jobs.jobs import Job, Jobs
from services.jobs.signature import job_key
from services.jobs.training import checked_training
from services.jobs.training_jobs import Place, training_spec
from services.jobs.training_progress import UNIT, TrainingProgress
from services.models.catalogue import resolve
from services.serving.trained_models import TrainedModels
from services.settings import load_settings
from services.tokens.tokenization import load_tokenizer
from tests.end_to_end.system import System, wait_until
from tests.pipelines.conftest import write_base, write_conversations
from tests.sky.lab.lab import Lab, unmet

PATIENCE_S = 600.0  # SkyPilot takes a minute on two idle cores, and much longer on busy ones
SECRET = "hf_that_nobody_shall_read"


class SkySystem(System):
    """Redis, a beat and the workers of the pipelines, whose SkyPilot is that of the lab."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        super().__init__(folder, "lab")
        self.lab = lab
        self.jobs = Jobs(self.redis, self.keys, job_key(load_settings(self.environment)))
        self.trained = TrainedModels(self.redis, self.keys)
        self.celery = make_celery(load_settings(self.environment))
        self.environment |= {**lab.server.client, "HF_TOKEN": SECRET, "HF_HUB_OFFLINE": "1"}
        self.base, self.data = lab.shared / "base", lab.shared / "data.jsonl"
        write_base(self.base, load_tokenizer(resolve("smollm2-135m")))
        write_conversations(self.data, 40)
        subprocess.run(["chmod", "-R", "a+rX", str(lab.shared)], check=True)
        for role in ("beat", "worker", "trainings"):
            self.start("pipelines", role)

    def submit(self, name: str, *, spot: bool = False, **fields: Any) -> Job:
        """A fine-tuning on eight GPUs, of which the program uses none."""
        spec = self.spec(name, spot=spot, **fields)
        job = self.jobs.submit(name, "train", name, spec)
        wake(self.celery, name)
        return job

    def spec(self, name: str, *, spot: bool = False, **fields: Any) -> dict[str, Any]:
        tiny = {
            "name": name,
            "model": str(self.base),
            "seq_len": 64,
            "tokens_per_step": 512,
            "per_device_tokens": 64,
            "save_steps": 5,
            "learning_rate": 0.01,
            "gradient_checkpointing": False,
            "sky": "train-vicuna.yaml",
            **fields,
        }
        place = Place("sky", spot=spot, num_devices=8, infra="slurm")
        spec = training_spec(checked_training(tiny), [str(self.data)], str(self.out(name)), place)
        return {**spec, "env": {"TRAIN_PYTHON": self.lab.python, "PROCESSES": "1", "HF_HUB_OFFLINE": "1"}}

    def out(self, name: str) -> Path:
        return self.lab.shared / name

    def progress(self, name: str) -> TrainingProgress:
        return TrainingProgress.from_note(self.jobs.units(name).get(UNIT, {}))

    def log(self, name: str) -> str:
        return "\n".join(line for _, _, line in self.jobs.tail(name, limit=10_000))

    def ended(self, name: str) -> Job:
        self.wait_for(lambda: self.jobs.get(name).ended, f"the end of {name}")
        return self.jobs.get(name)

    def checkpoints(self, name: str) -> list[int]:
        """Steps of the complete ones."""
        found = self.out(name).glob("checkpoints/checkpoint-*/COMPLETE.json")
        return sorted(int(path.parent.name.removeprefix("checkpoint-")) for path in found)

    def slurm_jobs(self, name: str) -> list[str]:
        """Ids of the Slurm jobs that its machines are."""
        return self.lab.slurm.queue(f"train-{name}-")

    def trains(self, name: str) -> bool:
        """Whether its program runs."""
        return self.lab.slurm.runs(f"pipelines.training .*--out {self.out(name)}")

    def wait_for(self, condition: Any, what: str) -> Any:
        """Some conditions are programs, whose work SkyPilot needs the machine for."""
        return wait_until(condition, what, PATIENCE_S, pause_s=0.5)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if reason := unmet():
        pytest.skip(reason)
    lab = Lab()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.server.client.items():
            patch.setenv(name, value)  # before SkyPilot is imported
        yield lab
    lab.stop()


@pytest.fixture(scope="session")
def system(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkySystem]:
    system = SkySystem(tmp_path_factory.mktemp("system"), lab)
    yield system
    system.close()
