"""A folder as a training leaves it, served by real workers: told to while they stand by, or given its name."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chat.journal import Journal
from services.chat.requests import Requests
from services.serving.trained_models import TrainedModel, TrainedModels
from services.wire.messages import ChatRequest, Message, SamplingOptions
from tests.end_to_end import tiny_model
from tests.end_to_end.system import System, running_system, wait_until

LOAD_S = 120.0  # torch alone takes many seconds to be imported on a busy machine


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return tiny_model.build(tmp_path_factory.mktemp("runs") / "model")


@pytest.fixture
def system(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with running_system(tmp_path, slots=2, cache_gib=0.01) as made:
        trained = TrainedModels(made.redis, made.keys)
        trained.register(TrainedModel.from_manifest(model_folder, name="tiny", job="j1", created_s=0.0))
        yield made


def ask(system: System) -> str:
    """The whole answer of the tiny model."""
    rid = uuid.uuid4().hex
    options = SamplingOptions(max_new_tokens=8, temperature=0)
    Requests(system.redis, system.keys).submit(ChatRequest(rid, "u", "tiny", (Message("user", "hi"),), options))
    journal = Journal(system.redis, system.keys)
    wait_until(lambda: (head := journal.head(rid)) and head.ended, "the answer", LOAD_S)
    read = journal.read(rid)
    assert read is not None and read[0].status == "finished"
    return "".join(event.text for event in read[1])


def log_of(system: System) -> str:
    return "".join(path.read_text() for path in sorted(system.folder.glob("process-*.log")))


def test_a_standby_worker_answers_with_what_was_trained_and_then_stands_by_again(system: System) -> None:
    trained = TrainedModels(system.redis, system.keys)
    process = system.start("workers", "--standby")
    trained.serve("tiny")
    assert ask(system)
    assert [worker.pid for worker in system.registry.workers()] == [process.pid]
    trained.stop_serving("tiny")
    wait_until(lambda: "tiny is served here no longer" in log_of(system), "its end", 30)
    assert process.poll() is None and system.registry.workers() == []


def test_a_worker_is_given_the_name_of_a_trained_model(system: System) -> None:
    process = system.start("workers", model="tiny")
    system.wait_for_worker(process, LOAD_S)
    assert ask(system)


def test_a_worker_refuses_a_model_that_is_half_there(system: System, tmp_path: Path) -> None:
    half = tmp_path / "copied"
    half.mkdir()
    (half / "config.json").write_text("{}")
    tiny_model.seal(half)
    (half / "config.json").unlink()
    TrainedModels(system.redis, system.keys).register(TrainedModel("half", str(half), "opt", "j2", 0.0))
    process = system.start("workers", model="half")
    assert process.wait(60) == 1
    assert "is not complete: config.json is not there; let its training finish, or copy it again" in log_of(system)
    assert "Traceback" not in log_of(system)
