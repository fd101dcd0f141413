"""The order in which programs and Redis start is free: all programs, as real processes, before their Redis is there."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer, free_port
from services.places import ROOT
from services.serving.registry import Registry
from services.wire.keys import Keys
from tests.end_to_end import tiny_model
from tests.end_to_end.system import answers, wait_until

START_S = 120.0  # all are started at once
READY = {  # program → what it says when it does its work
    "webapp": "answers",
    "workers": "serving ",
    "workers --standby": "standing by for ",
    "pipelines worker": "cleaning with ",
    "pipelines trainings": "looking after fine-tunings",
    "pipelines batches": "looking after batches",
    "pipelines beat": "a sweep every ",
}
WAITING = "waiting for Redis at 127.0.0.1:"
each_program = pytest.mark.parametrize("name", READY)


class Program:
    """A process and what it has said."""

    def __init__(self, name: str, redis_url: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._log = folder / "log"
        options: dict[str, object] = {
            "STATE_DIR": folder,
            "MODEL": folder.parents[1] / "model",
            "PORT": 0,
            "LOG_FORMAT": "json",
            "CLEAN_PROCESSES": 1,
            "CACHE_GIB": 0.01,
        }
        ours = {key: value for key, value in os.environ.items() if not key.startswith("CHATSERVER_")}
        environment = {f"CHATSERVER_{key}": str(value) for key, value in options.items()}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *name.split()],
                cwd=ROOT,
                env={**ours, **environment, "REDIS_URL": redis_url, "HF_HUB_OFFLINE": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def written(self) -> str:
        return self._log.read_text()

    def said(self, what: str) -> list[str]:
        """The messages that have this in them."""
        messages = [json.loads(line)["message"] for line in self.written().splitlines() if line.startswith("{")]
        return [message for message in messages if what in message]

    def wait_until_said(self, what: str) -> None:
        wait_until(lambda: self.said(what) or self.process.poll() is not None, what, START_S)
        assert self.process.poll() is None, self.written()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Started:
    """Every program three times: its Redis is not there yet, accepts and is silent, has another password."""

    server: EmbeddedServer
    early: dict[str, Program]
    hanging: dict[str, Program]
    refused: dict[str, Program]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("start")
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        locked = stack.enter_context(EmbeddedServer(folder / "locked", appendfsync="no"))
        with contextlib.closing(connect(locked.url, role="test")) as client:
            client.config_set("requirepass", "right")
        later = EmbeddedServer(folder / "later", port=free_port(), appendfsync="no")
        stack.callback(later.stop)

        def all_programs(group: str, url: str) -> dict[str, Program]:
            programs = {name: Program(name, url, folder / group / name.replace(" ", "_")) for name in READY}
            for program in programs.values():
                stack.callback(program.end)
            return programs

        refused = all_programs("refused", locked.url.replace("//", "//:wrong@"))
        hanging = all_programs("hanging", f"redis://127.0.0.1:{silent.getsockname()[1]}")
        early = all_programs("early", later.url)
        tiny_model.build(folder / "model")  # while they start: it takes as long
        yield Started(later, early, hanging, refused)


@each_program
def test_a_wrong_password_ends_it_with_a_message(started: Started, name: str) -> None:
    program = started.refused[name]
    assert program.process.wait(START_S) == 1
    last = program.written().splitlines()[-1]
    assert "Redis refuses the credentials in REDIS_URL: " in last and "wrong" not in last
    assert "Traceback" not in program.written()


@each_program
def test_a_signal_ends_it_at_once_and_in_order_while_redis_is_silent(started: Started, name: str) -> None:
    """It was in the middle of a call that takes five seconds to fail, or died of the signal."""
    program = started.hanging[name]
    program.wait_until_said(WAITING)
    asked = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(30) == 0, program.written()
    assert time.monotonic() - asked < 4


@each_program
def test_started_before_redis_it_says_so(started: Started, name: str) -> None:
    started.early[name].wait_until_said(WAITING)
    assert not started.early[name].said(READY[name])


@pytest.fixture(scope="module")
def redis_came(started: Started) -> Started:
    for program in started.early.values():
        program.wait_until_said(WAITING)
    started.server.start()
    return started


@each_program
def test_when_redis_comes_it_does_its_work(redis_came: Started, name: str) -> None:
    program = redis_came.early[name]
    program.wait_until_said(READY[name])
    assert len(program.said(WAITING)) == len(set(program.said(WAITING)))
    assert program.said(" answers") == [f"Redis at 127.0.0.1:{redis_came.server.port} answers"]


def test_then_the_page_and_the_model_are_served(redis_came: Started) -> None:
    (listening,) = redis_came.early["webapp"].said("listening on ")
    wait_until(lambda: answers(listening.partition("listening on ")[2] + "/readyz"), "the page")
    with contextlib.closing(connect(redis_came.server.url, role="test")) as client:
        keys, pid = Keys("chatserver"), redis_came.early["workers"].process.pid
        wait_until(lambda: [worker.pid for worker in Registry(client, keys).workers()] == [pid], "the worker", START_S)
        wait_until(lambda: client.exists(keys.beat), "the beat")


def test_every_line_that_they_write_is_json_and_names_its_process(redis_came: Started) -> None:
    """An engine's process wrote its library's lines as they came."""
    for name in READY:
        redis_came.early[name].wait_until_said(READY[name])
    found: dict[str, Any] = {}
    for name, program in redis_came.early.items():
        found[name] = {json.loads(line)["process"] for line in program.written().splitlines()}
    assert found == {
        "webapp": {"web"},
        "workers": {"worker", "engine"},
        "workers --standby": {"worker"},
        "pipelines worker": {"clean"},
        "pipelines trainings": {"train"},
        "pipelines batches": {"batch"},
        "pipelines beat": {"beat"},
    }
