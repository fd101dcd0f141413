"""What a finished fine-tuning made, under which names it is known."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from pipelines.celery.tasks import registering
from pipelines.launching.registering import register_model
from services.errors import StorageFull
from services.jobs.jobs import ORDER, Job, Jobs
from services.jobs.training import read_training
from services.jobs.training_progress import TrainingProgress
from services.machine.files import seal
from services.serving.trained_models import TrainedModels
from services.settings import load_settings
from services.wire.keys import Keys

PROGRESS = TrainingProgress(records=7, loss=0.5)


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


def job(out: Path | str, **settings: Any) -> Job:
    config = read_training("smollm2-135m", {"name": "july", **settings}).model_dump(mode="json")
    return Job("j1", "train", "july", "finished", {"out": str(out), "config": config}, 1.0)


def written(out: Path, *results: str) -> Path:
    for name in results:
        (out / name).mkdir(parents=True)
        config = "adapter_config.json" if name == "adapter" else "config.json"
        (out / name / config).write_text(json.dumps({"base_model_name_or_path": "smollm2-135m"}))
        seal(out / name, "manifest.json", {"base": "smollm2-135m", "metrics": {"steps": 7, "loss": 0.5}, "data": []})
    return out


def listed(client: redis.Redis, keys: Keys) -> list[tuple[str, str, str]]:
    return [(model.name, model.kind, model.path) for model in TrainedModels(client, keys).list()]


def test_a_model_and_its_adapter_are_two_models_with_one_base(
    redis_client: redis.Redis, keys: Keys, tmp_path: Path
) -> None:
    out = written(tmp_path, "adapter", "model")
    for _ in range(2):
        assert register_model(redis_client, keys, job(out, method="lora"), PROGRESS) == "july"
    assert listed(redis_client, keys) == [
        ("july", "model", f"{out}/model"),
        ("july-adapter", "adapter", f"{out}/adapter"),
    ]
    assert TrainedModels(redis_client, keys).get("july-adapter").lineage == ("smollm2-135m",)


def test_an_adapter_alone_has_the_name_of_the_training(redis_client: redis.Redis, keys: Keys, tmp_path: Path) -> None:
    out = written(tmp_path, "adapter")
    assert register_model(redis_client, keys, job(out, method="lora", save="adapter"), PROGRESS) == "july"
    assert listed(redis_client, keys) == [("july", "adapter", f"{out}/adapter")]


def test_what_an_older_build_left_has_no_adapter(redis_client: redis.Redis, keys: Keys, tmp_path: Path) -> None:
    out = written(tmp_path, "model")
    assert register_model(redis_client, keys, job(out, method="lora"), PROGRESS) == "july"
    assert [name for name, _, _ in listed(redis_client, keys)] == ["july"]


def test_a_bucket_has_what_was_asked_for(redis_client: redis.Redis, keys: Keys) -> None:
    assert register_model(redis_client, keys, job("s3://b/run", method="lora"), PROGRESS) == "july"
    assert listed(redis_client, keys) == [
        ("july", "model", "s3://b/run/model"),
        ("july-adapter", "adapter", "s3://b/run/adapter"),
    ]


@pytest.mark.parametrize("free_bytes", [0, 1 << 20])
def test_a_nearly_full_disk_costs_no_model(
    redis_client: redis.Redis, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int
) -> None:
    """A table of some kilobytes demanded the gibibyte that uploads leave free, before the model was registered."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    settings = load_settings({"CHATSERVER_STATE_DIR": str(tmp_path)})
    register = registering(redis_client, keys, Jobs(redis_client, keys), settings)
    done = job(written(tmp_path / "out", "model"))
    with contextlib.nullcontext() if free_bytes else pytest.raises(StorageFull):
        register(replace(done, spec={**done.spec, ORDER: {"user": "ann"}}), PROGRESS)
    assert [name for name, _, _ in listed(redis_client, keys)] == ["july"]


def test_a_model_is_wanted_where_its_job_says_so(redis_client: redis.Redis, keys: Keys, tmp_path: Path) -> None:
    for name, more in (("asked", {"serve": True}), ("not", {})):
        done = job(written(tmp_path / name, "model"), name=name)
        register_model(redis_client, keys, replace(done, id=name, name=name, spec={**done.spec, **more}), PROGRESS)
    assert [model.name for model in TrainedModels(redis_client, keys).wanted()] == ["asked"]
