"""Standby workers as real processes: who loads what is wanted, and what happens when they die or are sent away."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from services.chat.journal import Journal
from services.chat.requests import Requests
from services.connection.embedded import EmbeddedServer
from services.places import ROOT
from services.serving.registry import Registry
from services.serving.trained_models import TrainedModel, TrainedModels
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message, SamplingOptions
from tests.conftest import Eventually
from tests.services.serving.test_trained_models import written

LOAD_S = 30.0  # until a process runs on a busy machine, and for a claim to run out


class Standbys:
    """Processes, the installation they belong to, and its models."""

    def __init__(self, client: redis.Redis, url: str, namespace: str, folder: Path) -> None:
        self.redis = client
        self.keys = Keys(namespace)
        self.trained = TrainedModels(client, self.keys)
        self.registry = Registry(client, self.keys)
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **os.environ,
            "REDIS_URL": url,
            "CHATSERVER_NAMESPACE": namespace,
            "CHATSERVER_LEASE_S": "1.5",
            "CHATSERVER_SLOTS": "4",
        }

    def start(self, *arguments: str) -> int:
        """Its process id."""
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.workers.standby_process", *arguments],
                    cwd=ROOT,
                    env=self._environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return self.processes[-1].pid

    def register(self, name: str, *, path: str = "") -> Path:
        folder = self.folder / name
        if not path:
            written(folder)
        self.trained.register(TrainedModel(name, path or str(folder), "opt", name, 0.0))
        return folder

    def servers(self, name: str) -> list[int]:
        """Process ids of the workers that serve a model."""
        return [worker.pid for worker in self.registry.workers() if worker.model == name]

    def loading(self, name: str) -> Callable[[], bool]:
        """Whether somebody has the claim and has begun to load."""
        return lambda: bool(self.trained.loader(name)) and f"loading {name}" in self.said()

    def said(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def standbys(
    redis_client: redis.Redis, redis_server: EmbeddedServer, namespace: str, tmp_path: Path
) -> Iterator[Standbys]:
    made = Standbys(redis_client, redis_server.url, namespace, tmp_path)
    yield made
    made.close()


def test_of_two_that_stand_by_one_loads_what_is_wanted(standbys: Standbys, eventually: Eventually) -> None:
    standbys.register("july")
    for _ in range(2):
        standbys.start()
    eventually(lambda: standbys.said().count("standing by") == 2, "both", LOAD_S)
    assert standbys.servers("july") == []
    standbys.trained.serve("july")
    eventually(lambda: standbys.servers("july"), "a worker", LOAD_S)
    standbys.register("august")
    standbys.trained.serve("august")
    eventually(lambda: standbys.servers("august"), "a worker of the second model", LOAD_S)
    assert standbys.servers("august") != standbys.servers("july")
    assert standbys.said().count("loading july from") == 1 and standbys.said().count("loading august from") == 1


def test_another_takes_over_from_one_that_is_killed_while_it_loads(standbys: Standbys, eventually: Eventually) -> None:
    folder = standbys.register("july")
    (folder / "slow").touch()
    standbys.trained.serve("july")
    first = standbys.start()
    eventually(standbys.loading("july"), "the first one's claim", LOAD_S)
    second = standbys.start()
    eventually(lambda: standbys.said().count("standing by") == 2, "the second", LOAD_S)
    os.kill(first, signal.SIGKILL)
    (folder / "slow").unlink()
    eventually(lambda: standbys.servers("july") == [second], "the second one's worker", LOAD_S)


def test_one_that_was_taken_over_while_it_was_frozen_serves_no_longer(
    standbys: Standbys, eventually: Eventually
) -> None:
    standbys.register("july")
    standbys.trained.serve("july")
    first = standbys.start()
    eventually(lambda: standbys.servers("july") == [first], "the first one's worker", LOAD_S)
    os.kill(first, signal.SIGSTOP)
    second = standbys.start()
    eventually(lambda: standbys.servers("july") == [second], "the second one's worker", LOAD_S)
    os.kill(first, signal.SIGCONT)
    eventually(lambda: "another worker has taken over model july" in standbys.said(), "the loss", LOAD_S)
    eventually(lambda: standbys.servers("july") == [second], "its end")
    assert standbys.processes[0].poll() is None


def test_what_it_ran_when_it_was_sent_away_goes_on_when_the_model_is_wanted_again(
    standbys: Standbys, eventually: Eventually
) -> None:
    standbys.register("july")
    standbys.trained.serve("july")
    standbys.start()
    requests, journal = Requests(standbys.redis, standbys.keys), Journal(standbys.redis, standbys.keys)
    text = "Every word of this answer must arrive, and each of them once. " * 6
    question = ChatRequest("r", "u", "july", (Message("user", text),), SamplingOptions(max_new_tokens=1000))
    requests.submit(question)  # before it is loaded: it waits

    def answer() -> str:
        read = journal.read("r")
        return "".join(event.text for event in read[1]) if read else ""

    eventually(lambda: len(answer()) > 20, "the beginning of the answer", LOAD_S)
    standbys.trained.stop_serving("july")
    eventually(lambda: not standbys.servers("july") and "served here no longer" in standbys.said(), "the drain", LOAD_S)
    assert standbys.processes[0].poll() is None and standbys.trained.loader("july") == ""
    head = journal.head("r")
    assert head is not None and not head.ended and len(answer()) < len(text)
    standbys.trained.serve("july")
    eventually(lambda: (head := journal.head("r")) and head.ended, "the end of the answer", LOAD_S)
    assert answer() == text


def test_what_fails_to_load_is_said_and_others_may_try(standbys: Standbys, eventually: Eventually) -> None:
    (standbys.register("july") / "broken").write_text("no room for july")
    standbys.register("august")
    standbys.trained.serve("july")
    standbys.trained.serve("august")
    standbys.start()
    eventually(lambda: standbys.trained.trouble("july") == "no room for july", "the trouble", LOAD_S)
    eventually(lambda: standbys.servers("august"), "the other model", LOAD_S)
    assert standbys.trained.loader("july") == ""


def test_a_model_that_is_not_here_is_left_to_others_unclaimed(standbys: Standbys, eventually: Eventually) -> None:
    standbys.register("july", path="s3://bucket/july/model")
    standbys.trained.serve("july")
    standbys.start()
    eventually(lambda: "is in a bucket" in standbys.trained.trouble("july"), "the reason", LOAD_S)
    assert "serve-worker.yaml" in standbys.trained.trouble("july")
    assert standbys.trained.loader("july") == ""


def test_one_that_stands_by_for_a_model_serves_no_other(standbys: Standbys, eventually: Eventually) -> None:
    for name in ("july", "august"):
        standbys.register(name)
        standbys.trained.serve(name)
    pid = standbys.start("august")
    eventually(lambda: standbys.servers("august") == [pid], "its model", LOAD_S)
    assert standbys.trained.loader("july") == ""


def test_it_ends_on_sigterm_whether_it_waits_or_serves(standbys: Standbys, eventually: Eventually) -> None:
    standbys.register("july")
    standbys.trained.serve("july")
    standbys.start()
    eventually(lambda: standbys.servers("july"), "a worker", LOAD_S)
    standbys.start()
    eventually(lambda: standbys.said().count("standing by") == 2, "the second", LOAD_S)
    for process in standbys.processes[::-1]:
        process.terminate()
        assert process.wait(15) == 0
    assert standbys.trained.loader("july") == ""
