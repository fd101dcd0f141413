"""The doctor as people run it, on real processes: quiet where all is well, and every planted fault in one run each."""

import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.chat.dead_letters import DeadLetters
from services.chat.requests import Requests
from services.connection.embedded import EmbeddedServer, free_port
from services.jobs.jobs import Jobs
from services.places import ROOT
from services.serving.registry import WorkerInfo
from services.wire.keys import VERSION
from services.wire.messages import ChatRequest, Message
from tests.end_to_end.system import System, answers, wait_until

# What depends on the machine that runs the tests.
OF_THE_MACHINE = {"open files", "packages", "disk", "memory", "GPU", "page"}


def doctor(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.command", "doctor", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def findings(environment: dict[str, str]) -> tuple[int, list[dict[str, str]]]:
    """The exit code, and what was found."""
    answer = doctor(environment, "--json")
    assert answer.stderr == ""
    told: dict[str, Any] = json.loads(answer.stdout)
    assert told["ok"] == (answer.returncode == 0)
    return answer.returncode, told["findings"]


def said(found: list[dict[str, str]], level: str, subject: str) -> str:
    return " | ".join(each["message"] for each in found if (each["level"], each["subject"]) == (level, subject))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    made = System(tmp_path_factory.mktemp("system"), appendfsync="everysec")
    yield made
    made.close()


def test_a_healthy_installation_is_told_so_and_ends_with_0(system: System) -> None:
    port = free_port()
    system.environment["CHATSERVER_PORT"] = str(port)
    for role in ("worker", "trainings", "beat"):
        system.start("pipelines", role)
    system.start("webapp")
    system.echo_worker()
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "the web app", 60)
    wait_until(lambda: system.redis.exists(system.keys.beat), "the beat", 60)
    wait_until(lambda: _both_answer(system), "the pipelines", 60)
    code, found = findings(system.environment)
    bad = [each for each in found if each["level"] in ("warning", "wrong") and each["subject"] not in OF_THE_MACHINE]
    assert (code, bad) == (0, [])
    fine = {each["subject"] for each in found if each["level"] == "ok"}
    assert fine >= {"settings", "state folder", "engine", "model", "Redis", "Redis exposure", "clock"}
    assert fine >= {"Redis version", "Redis settings", "Redis persistence", "Redis eviction", "Redis memory"}
    assert fine >= {"workers", "queues", "dead letters", "web app", "pipelines"}
    assert said(found, "ok", "web app") == f"the web app on 127.0.0.1:{port} is ready"


def _both_answer(system: System) -> bool:
    """The pipelines' workers have said that they are ready."""
    logs = "".join(path.read_text() for path in system.folder.glob("process-*.log"))
    return "cleaning with" in logs and "looking after" in logs


def test_every_fault_of_a_running_installation_is_found_in_one_run(system: System) -> None:
    """Ten faults at once: none hides another."""
    for process in system.processes:
        process.terminate()
    for process in system.processes:
        process.wait(30)
    system.redis.delete(system.keys.beat)  # it would expire within half a minute
    assert system.registry.workers() == []
    system.redis.config_set("appendonly", "no")
    system.redis.config_set("maxmemory", str(2**30))
    system.redis.config_set("maxmemory-policy", "volatile-lru")
    system.redis.config_set("no-appendfsync-on-rewrite", "yes")
    system.redis.config_set("client-output-buffer-limit", "pubsub 0 0 0")
    system.redis.sadd(system.keys.models, "lost")
    requests = Requests(system.redis, system.keys)
    requests.submit(ChatRequest("r1", "ann", "lost", (Message("user", "hi"),)))
    system.redis.xadd(system.keys.dead("lost"), {"rid": "r2", "user": "ann", "reason": "poison", "payload": "?"})
    assert len(DeadLetters(system.redis, requests).newest(5)) == 1
    Jobs(system.redis, system.keys).submit("j1", "clean", "j1", {"out": str(system.folder)})
    old = WorkerInfo("w-old", "lost", "none", 4, 0, 0.0, 2048, "gpu-box", 1, 0.0, protocol=VERSION - 1)
    system.registry.announce(old)
    system.redis.expire(system.keys.worker("w-old"), 600)

    code, found = findings(system.environment)
    assert code == 1
    assert "Redis has no append-only file" in said(found, "wrong", "Redis persistence")
    assert "maxmemory-policy is volatile-lru" in said(found, "wrong", "Redis eviction")
    assert "no-appendfsync-on-rewrite is 'yes'" in said(found, "warning", "Redis settings")
    assert "pubsub is 0" in said(found, "warning", "Redis settings")
    assert "worker w-old on gpu-box speaks protocol 0" in said(found, "warning", "workers")
    assert "1 request(s) wait for model lost, which no worker serves" in said(found, "wrong", "queues")
    assert "given up: 1 of lost" in said(found, "warning", "dead letters")
    assert "1 job(s) are unfinished, and no worker and no beat runs" in said(found, "warning", "pipelines")
    assert "no web app on" in said(found, "note", "web app")
    assert all(each["remedy"] for each in found if each["level"] in ("warning", "wrong"))


def test_an_installation_without_redis_is_told_everything_else(tmp_path: Path) -> None:
    taken = tmp_path / "state"
    taken.touch()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": f"redis://:secret@127.0.0.1:{free_port()}/0",
            "CHATSERVER_SLOTZ": "3",
            "CHATSERVER_LEASE_S": "0.1",
            "CHATSERVER_STATE_DIR": str(taken),
            "CHATSERVER_MODEL": str(tmp_path / "gone.gguf"),
            "CHATSERVER_PORT": str(port),
        }
        answer = doctor(environment)
    lines = answer.stdout.splitlines()
    assert (answer.returncode, answer.stderr) == (1, "")
    for start in (
        "WRONG    settings: CHATSERVER_LEASE_S='0.1'",
        "WRONG    settings: unknown setting CHATSERVER_SLOTZ; did you mean CHATSERVER_SLOTS?",
        f"WRONG    state folder: {taken} is a file",
        "WRONG    Redis: 127.0.0.1:",
        f"WRONG    model: model '{tmp_path}/gone.gguf' is not a file",
        f"WRONG    web app: the program on 127.0.0.1:{port} did not answer",
        "note     queues: without Redis the doctor cannot see workers, queues, dead letters and pipelines",
    ):
        assert any(line.startswith(start) for line in lines), f"{start!r} is missing in\n{answer.stdout}"
    assert lines[-1].endswith(" 6 wrong"), answer.stdout
    assert "secret" not in answer.stdout and "\x1b" not in answer.stdout
    remedies = [below for above, below in itertools.pairwise(lines) if above.startswith("WRONG")]
    assert len(remedies) == 6 and all(line.startswith("         → ") for line in remedies)


# What the command itself needs: all that a slim image has.
FEW_PACKAGES = (
    "annotated_types",
    "click",
    "hiredis",
    "orjson",
    "pydantic",
    "pydantic_core",
    "redis",
    "rich",
    "typer",
    "yaml",
)
FEW_MODULES = (
    "typing_extensions.py",
    "typing_inspection",
    "shellingham",
    "markdown_it",
    "mdurl",
    "pygments",
    "annotated_doc",
)


def test_an_image_with_nothing_but_the_command_gets_notes_and_no_crash(
    tmp_path: Path, redis_server: EmbeddedServer, namespace: str
) -> None:
    site, here = Path(orjson.__file__).parents[1], tmp_path / "image"
    here.mkdir()
    for name in (*FEW_PACKAGES, *FEW_MODULES):
        if (site / name).exists():
            (here / name).symlink_to(site / name)
    (here / "services").symlink_to(ROOT / "services")
    environment = {"PATH": "/nowhere", "PYTHONPATH": str(here), "REDIS_URL": redis_server.url}
    environment |= {"CHATSERVER_NAMESPACE": namespace, "CHATSERVER_PORT": str(free_port())}
    answer = subprocess.run(
        [sys.executable, "-S", "-m", "services.command", "doctor", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.stderr == ""
    found = json.loads(answer.stdout)["findings"]
    assert [each for each in found if "the check itself failed" in each["message"]] == []
    noted = {each["subject"] for each in found if each["level"] == "note"}
    assert noted >= {"engine", "model", "page", "pipelines", "cloud", "GPU"}
