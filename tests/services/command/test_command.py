"""The command as a program: quick help, no torch, errors that name the remedy."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from services.chat.requests import Requests
from services.command.access import choose_model, command_settings, user_id
from services.command.launch import become
from services.connection.embedded import EmbeddedServer, free_port
from services.errors import UnknownModel
from services.jobs.training import preset_names, read_training
from services.serving.registry import Registry, WorkerInfo
from services.serving.trained_models import TrainedModel, TrainedModels
from services.wire.keys import NAME, Keys
from services.wire.messages import ChatRequest, Message

HEAVY = ("torch", "transformers", "openvino", "flask", "workers", "webapp", "pipelines")


def run(*arguments: str, folder: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.command", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def worker_info(model: str) -> WorkerInfo:
    now = time.time()
    return WorkerInfo(f"w-{model}", model, "none", 4, 1, 12.34, 2048, "h", 1, now, now)


def test_help_names_every_subcommand(tmp_path: Path) -> None:
    answer = run("--help", folder=tmp_path)
    assert answer.returncode == 0
    assert all(
        f" {name} " in answer.stdout for name in ("up", "chat", "send", "models", "status", "dead", "worker", "web")
    )


def test_help_loads_nothing_heavy_and_no_redis(tmp_path: Path) -> None:
    """`chatserver --help` must be quick; torch alone takes seconds to import."""
    program = (
        "import sys, services.command.application\n"
        f"print([name for name in ({', '.join(map(repr, HEAVY))}, 'redis', 'prompt_toolkit') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_whole_client_loads_no_torch() -> None:
    program = (
        "import sys, services.command.talk.terminal, services.command.talk.send\n"
        "import services.command.run.machine, services.serving.overview\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [("models",), ("status",), ("send", "hi"), ("chat",), ("worker",), ("web",)])
def test_an_unknown_setting_stops_every_command(arguments: tuple[str, ...], tmp_path: Path) -> None:
    answer = run(*arguments, folder=tmp_path, CHATSERVER_SLOTZ="3")
    assert answer.returncode == 2
    assert "unknown setting CHATSERVER_SLOTZ; did you mean CHATSERVER_SLOTS?" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("arguments", [("models",), ("status",), ("send", "hi"), ("chat",)])
def test_a_missing_redis_is_a_line_and_an_exit_code(arguments: tuple[str, ...], tmp_path: Path) -> None:
    answer = run(*arguments, folder=tmp_path, stdin="hi", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "Redis does not answer" in answer.stderr and "(unavailable)" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_conversation_in_a_terminal_does_not_wait_for_a_missing_redis(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    answer = subprocess.run(
        [sys.executable, "-m", "services.command", "chat"],
        cwd=tmp_path,
        env={**os.environ, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert answer.returncode == 1
    assert "Redis does not answer" in answer.stderr and "Traceback" not in answer.stderr


def test_asking_a_model_that_nobody_serves_fails(tmp_path: Path, redis_server: EmbeddedServer, namespace: str) -> None:
    variables = {"REDIS_URL": redis_server.url, "CHATSERVER_NAMESPACE": namespace}
    answer = run("chat", folder=tmp_path, stdin="hi\n", **variables)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "no worker serves a model yet" in answer.stderr
    answer = run("send", "hi", "--model", "other", folder=tmp_path, **variables)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "(unknown_model)" in answer.stderr


def test_a_message_that_is_empty_or_no_text_is_refused(
    tmp_path: Path, redis_server: EmbeddedServer, redis_client: redis.Redis, namespace: str
) -> None:
    Registry(redis_client, Keys(namespace)).announce(worker_info("m"))
    variables = {"REDIS_URL": redis_server.url, "CHATSERVER_NAMESPACE": namespace}
    assert "(invalid_request)" in run("chat", folder=tmp_path, stdin=" \n", **variables).stderr
    assert "(invalid_request)" in run("send", "hi", "--temp", "-3", folder=tmp_path, **variables).stderr


def test_models_and_status_show_workers_queues_and_requests(
    tmp_path: Path, redis_server: EmbeddedServer, redis_client: redis.Redis, namespace: str
) -> None:
    worker = worker_info("m")
    Registry(redis_client, Keys(namespace)).announce(worker)
    redis_client.expire(Keys(namespace).worker("w-m"), 60)  # five seconds are short for three programs
    request = ChatRequest("r1", "cli-me", "m", (Message("user", "hi"),))
    Requests(redis_client, Keys(namespace)).submit(request)
    variables = {"REDIS_URL": redis_server.url, "CHATSERVER_NAMESPACE": namespace}

    models = json.loads(run("models", "--json", folder=tmp_path, **variables).stdout)
    load = {"workers": 1, "slots": 4, "running": 1, "queued": 1, "tokens_per_s": 12.3}
    sampling = {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    expected = {"name": "m", **load, "context_tokens": 2048, "sampling": sampling, "supports": []}
    expected["started"] = worker.started
    assert models == [{**expected, "state": "served", "trouble": "", "trained": None}]
    assert run("models", folder=tmp_path, **variables).stdout.splitlines()[1].split()[:2] == ["m", "1"]

    status = json.loads(run("status", "--json", folder=tmp_path, **variables).stdout)
    (queue,) = status["models"]
    classes, oldest_s = queue.pop("classes"), queue.pop("oldest_s")
    assert queue == {**expected, "in_flight": 1, "dead": 0}
    assert {name: each["number"] for name, each in classes.items()} == {"retried": 0, "interactive": 1, "batch": 0}
    assert 0 < oldest_s == classes["interactive"]["oldest_s"]
    assert status["requests_in_flight"] == 1
    assert [(row["rid"], row["user"], row["status"], row["tokens"]) for row in status["requests"]] == [
        ("r1", "cli-me", "new", 0)
    ]
    assert status["workers"][0]["wid"] == "w-m"
    assert "r1" in run("status", folder=tmp_path, **variables).stdout


def test_commands_find_the_server_that_up_started_over_the_same_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    default = command_settings(state_dir=tmp_path).redis_url
    with EmbeddedServer(tmp_path, appendfsync="no") as server:
        assert command_settings(state_dir=tmp_path).redis_url == server.url
        monkeypatch.setenv("REDIS_URL", "redis://10.0.0.1:6379/0")
        assert command_settings(state_dir=tmp_path).redis_url == "redis://10.0.0.1:6379/0"
        monkeypatch.delenv("REDIS_URL")
    assert command_settings(state_dir=tmp_path).redis_url == default


def test_a_program_beside_up_uses_the_server_of_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`chatserver worker` beside `make run` waited for port 6379 for ever, though `chat` found the private server."""
    became: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: became.append(environment))
    monkeypatch.delenv("REDIS_URL", raising=False)
    with EmbeddedServer(tmp_path, appendfsync="no") as server:
        become("workers", state_dir=tmp_path)
        become("webapp", state_dir=tmp_path, redis_url="redis://10.0.0.1:6379/0")
    become("pipelines", "beat", state_dir=tmp_path)
    assert [environment.get("REDIS_URL") for environment in became] == [server.url, "redis://10.0.0.1:6379/0", None]


@pytest.mark.parametrize("name", ["ann", "Jörg Müller", "DOMAIN\\x{}", "x" * 300])
def test_any_user_name_becomes_an_id_fit_for_a_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: name)
    assert NAME.fullmatch(user_id())
    assert user_id().startswith("cli-")


def test_the_default_model_is_the_first_that_has_a_worker(redis_client: redis.Redis, namespace: str) -> None:
    registry = Registry(redis_client, Keys(namespace))
    with pytest.raises(UnknownModel, match="chatserver worker"):
        choose_model(registry, None)
    registry.announce(worker_info("a"))
    registry.announce(worker_info("b"))
    assert choose_model(registry, None) == "a"
    registry.leave("w-a")
    assert choose_model(registry, None) == "b"
    assert choose_model(registry, "c") == "c"


def test_dead_letters_are_listed_retried_and_dropped(
    redis_server: EmbeddedServer, redis_client: redis.Redis, namespace: str, tmp_path: Path
) -> None:
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m")
    for rid in ("r1", "r2"):
        payload = ChatRequest(rid, "ann", "m", (Message("user", "hi"),)).encode()
        redis_client.xadd(keys.dead("m"), {"reason": "poison", "rid": rid, "user": "ann", "payload": payload})
    variables = {"REDIS_URL": redis_server.url, "CHATSERVER_NAMESPACE": namespace}
    assert "poison" in run("dead", folder=tmp_path, **variables).stdout
    assert "Given up" in run("status", folder=tmp_path, **variables).stdout
    again = run("dead", "retry", "r1", folder=tmp_path, **variables)
    (new_rid,) = Requests(redis_client, keys).queue("m").waiting()
    assert again.returncode == 0 and again.stdout.strip() == f"r1 runs again as {new_rid}"
    assert run("dead", "drop", "all", folder=tmp_path, **variables).stdout.strip() == "r2 dropped"
    assert run("dead", folder=tmp_path, **variables).stdout.strip() == "no dead letters"
    missing = run("dead", "retry", "r9", folder=tmp_path, **variables)
    assert missing.returncode == 1 and "r9" in missing.stderr


def test_trained_models_are_listed_with_their_lineage_served_stopped_and_forgotten(
    tmp_path: Path, redis_server: EmbeddedServer, redis_client: redis.Redis, namespace: str
) -> None:
    trained = TrainedModels(redis_client, Keys(namespace))
    trained.register(TrainedModel("july", "/runs/july/model", "opt", "j1", 0.0, step=7, loss=0.25))
    trained.register(TrainedModel("august", "/runs/august/model", "july", "j2", 1.0))
    trained.register(TrainedModel("august-adapter", "/runs/august/adapter", "july", "j2", 1.0, kind="adapter"))
    variables = {"REDIS_URL": redis_server.url, "CHATSERVER_NAMESPACE": namespace}

    def models(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run("models", *arguments, folder=tmp_path, **variables)

    shown = models().stdout
    assert "opt → july" in shown and "0.2500" in shown
    assert re.search(r"^august-adapter +adapter +opt → july ", shown, re.MULTILINE)
    assert models("forget", "august-adapter").returncode == 0
    assert "july is wanted" in models("serve", "july").stdout
    trained.complain("july", "no room")
    listed = {row["name"]: row for row in json.loads(models("--json").stdout)}
    assert [(name, row["state"]) for name, row in listed.items()] == [("august", "stopped"), ("july", "wanted")]
    assert listed["july"]["trouble"] == "no room" and listed["august"]["trained"]["lineage"] == ["opt", "july"]
    refused = models("forget", "july")
    assert refused.returncode == 1 and "stop it first: `chatserver models stop july`" in refused.stderr
    assert models("stop", "july").returncode == 0
    assert models("forget", "july").returncode == 0
    assert [row["name"] for row in json.loads(models("--json").stdout)] == ["august"]
    folder = tmp_path / "may"
    (folder / "gguf").mkdir(parents=True)
    trained.register(TrainedModel("may", str(folder), "opt", "j3", 2.0))
    assert "may: no GGUF: its export to GGUF was not finished" in models().stdout
    assert "should be in /runs/august/model" in models("export", "august").stderr
    unknown = models("serve", "july")
    assert unknown.returncode == 1 and "registered: august, may (unknown_model)" in unknown.stderr


def test_presets_are_listed_with_their_real_learning_rates(tmp_path: Path) -> None:
    """0.00002 was shown as 0.0."""
    header, *rows = run("train", "presets", folder=tmp_path).stdout.splitlines()
    column = header.split().index("learning_rate")
    assert {row.split()[0]: float(row.split()[column]) for row in rows} == {
        name: read_training(name).learning_rate for name in preset_names()
    }


def test_a_file_with_another_content_is_another_training(
    tmp_path: Path, redis_server: EmbeddedServer, namespace: str
) -> None:
    """The same path was the same job: its answer was exit 0 and the model of the old content."""
    data, out = tmp_path / "data.jsonl", tmp_path / "out"

    def submit(text: str, *more: str) -> subprocess.CompletedProcess[str]:
        data.write_text(text)
        environment = {"REDIS_URL": redis_server.url, "CHATSERVER_NAMESPACE": namespace}
        state = {"CHATSERVER_STATE_DIR": str(tmp_path / "state")}
        arguments = ("train", "submit", "smollm2-135m", "--data", str(data), *more)
        return run(*arguments, folder=tmp_path, **environment, **state)

    first, again, changed = (submit(text) for text in ("{}\n", "{}\n", '{"a": 1}\n'))
    assert [answer.returncode for answer in (first, again, changed)] == [0, 0, 0], first.stderr
    ids = [answer.stdout.split("submitted as ")[1].split(";")[0] for answer in (first, again, changed)]
    assert ids[0] == ids[1] != ids[2]
    assert submit("{}\n", "--out", str(out)).returncode == 0
    refused = submit('{"a": 1}\n', "--out", str(out))
    assert refused.returncode == 1
    assert "trains something else" in refused.stderr and "the data has another content" in refused.stderr
