"""The task of a fine-tuning, as SkyPilot gets it: built from the shipped file, without secrets, and understood."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.launching.sky_task import task_for
from pipelines.launching.targets import Run
from services.errors import ConfigurationError
from services.jobs.training import read_training
from services.places import ROOT
from tests.infra.machine import Machine
from tests.infra.sky_tasks import understood

SECRETS = {"WANDB_API_KEY": "wandb-secret-value", "HF_TOKEN": "hub-secret-value"}


def run(preset: str = "vicuna-7b", **given: Any) -> Run:
    fields: dict[str, Any] = {
        "name": "train-vicuna-1",
        "jid": "vicuna-1",
        "config": read_training(preset),
        "data": (ROOT / "README.md", ROOT / "LICENSE"),
        "out": "s3://my-models/vicuna/first",
        "num_devices": 8,
        "secrets": SECRETS,
    }
    return Run(**{**fields, **given})


def test_the_values_of_secrets_are_never_in_the_task() -> None:
    task = task_for(run())
    assert task["secrets"] == dict.fromkeys(task["secrets"], "") and set(SECRETS) <= set(task["secrets"])
    assert not any(value in json.dumps(task) for value in SECRETS.values())


def test_a_secret_given_as_a_plain_variable_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="HF_TOKEN is a secret"):
        task_for(run(env={"HF_TOKEN": "x"}))


def test_skypilot_understands_the_task(sky_python: Path, tmp_path: Path) -> None:
    cloud, shared = understood(
        sky_python,
        tmp_path,
        [
            (task_for(run(spot=True, infra="aws/us-east-1", num_nodes=2)), {}),
            (task_for(run("alpaca-7b", out="/shared/run", num_devices=0, infra="slurm")), {}),
        ],
    )
    assert (cloud["name"], cloud["num_nodes"], cloud["accelerators"]) == ("train-vicuna-1", 2, {"A100-80GB": 8})
    assert cloud["spot"] and cloud["recovery"]["recover_on_exit_codes"] == [33] and cloud["infra"] == "aws/us-east-1"
    assert cloud["mounts"] == {"/artifacts": ["s3://my-models", "MOUNT_CACHED"]}
    assert cloud["files"] == {
        "~/chatserver-data/0.jsonl": str(ROOT / "README.md"),
        "~/chatserver-data/1.jsonl": str(ROOT / "LICENSE"),
    }
    assert cloud["workdir"] == str(ROOT)
    assert (shared["accelerators"], shared["spot"], shared["recovery"]) == ({"A100-80GB": 4}, False, None)
    assert shared["mounts"] == {} and shared["envs"]["OUT"] == "/shared/run"


def test_machines_on_demand_are_not_spot_whatever_the_file_says() -> None:
    assert not {"use_spot", "job_recovery"} & set(task_for(run(spot=False))["resources"])


def test_spot_machines_are_recovered_with_every_file() -> None:
    resources = task_for(run("alpaca-7b", spot=True))["resources"]
    assert resources["use_spot"] is True and resources["job_recovery"]["recover_on_exit_codes"] == [33]


def test_the_configuration_travels_whole_and_on_one_line() -> None:
    config = read_training("vicuna-7b", {"learning_rate": "3e-5", "name": "mine"})
    envs = task_for(run(config=config))["envs"]
    assert "\n" not in envs["TRAINING_CONFIG"]
    assert type(config)(**yaml.safe_load(envs["TRAINING_CONFIG"])) == config
    assert not {"MODEL_SIZE", "SEQ_LEN", "GC_SCALE"} & set(envs)  # they would say something else


@pytest.mark.parametrize("preset", ["vicuna-7b", "alpaca-7b"])
def test_what_the_task_runs_is_the_training_program_with_all_of_it(tmp_path: Path, preset: str) -> None:
    machine = Machine(tmp_path)
    arguments, environment = machine.call(task_for(run(preset)), gpus=8)
    program = arguments[arguments.index("pipelines.training") - 1 :]
    config = machine.home / "chatserver-run" / "config-0.yaml"
    data = [f"{machine.home}/chatserver-data/{number}.jsonl" for number in (0, 1)]
    assert program == [
        *("-m", "pipelines.training", "--config", str(config), "--data", data[0], "--data", data[1]),
        *("--out", "/artifacts/vicuna/first"),
    ]
    assert read_training(str(config)) == read_training(preset)
    assert not {"WANDB_API_KEY", "HF_TOKEN"} & set(environment)


@pytest.mark.parametrize(("out", "source", "folder"), [
    ("s3://bucket/a/b", "s3://bucket", "/artifacts/a/b"),
    ("gs://bucket", "gs://bucket", "/artifacts"),
    ("cos://us-east/bucket/run", "cos://us-east/bucket", "/artifacts/run"),
])  # fmt: skip
def test_a_bucket_is_mounted_and_the_run_has_its_folder_in_it(out: str, source: str, folder: str) -> None:
    task = task_for(run(out=out))
    assert task["file_mounts"]["/artifacts"]["source"] == source and task["envs"]["OUT"] == folder


@pytest.mark.parametrize("out", ["s3://", "relative/folder", "cos://region-only"])
def test_an_out_that_no_machine_can_keep_is_refused_with_its_value(out: str) -> None:
    with pytest.raises(ConfigurationError, match=out):
        task_for(run(out=out))


def test_the_attention_of_the_configuration_decides_what_is_installed() -> None:
    assert task_for(run())["envs"]["USE_FLASH_ATTN"] == "1"
    assert task_for(run(config=read_training("vicuna-7b", {"attention": "sdpa"})))["envs"]["USE_FLASH_ATTN"] == "0"


def test_variables_of_the_run_win_over_those_of_the_file() -> None:
    envs = task_for(run(env={"PROCESSES": "2", "TRAIN_PYTHON": "/usr/bin/python3"}))["envs"]
    assert (envs["PROCESSES"], envs["TRAIN_PYTHON"]) == ("2", "/usr/bin/python3")


def test_building_a_task_twice_gives_the_same_and_changes_no_file() -> None:
    assert task_for(run()) == task_for(run())


def test_a_file_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match=r"train-alpaca\.yaml, train-vicuna\.yaml"):
        task_for(run(config=read_training("vicuna-7b", {"sky": "train-other.yaml"})))
