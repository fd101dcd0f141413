"""A training has its model exported to GGUF where CPUs serve it, and a worker then serves the GGUF."""

import shutil
import uuid
from pathlib import Path

import pytest

from pipelines.training import exporting
from pipelines.training.exporting import export_result
from pipelines.training.reporting import Reporter
from services.chat.journal import Journal
from services.chat.requests import Requests
from services.jobs.training import checked_training
from services.machine.files import seal, sha256_of
from services.models.catalogue import resolve
from services.serving.trained_models import TrainedModel, TrainedModels
from services.wire.messages import ChatRequest, Message, SamplingOptions
from tests.end_to_end.system import running_system, wait_until
from tests.pipelines.training.runs import Material, Run, finished, start

pytest.importorskip("openvino_genai")
pytestmark = pytest.mark.timeout(600)  # starts processes that load torch
LOAD_S = 120.0


@pytest.fixture(scope="module")
def exported(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    out = tmp_path_factory.mktemp("exported")
    return finished(material, out, "export=q8_0"), out


def test_the_model_is_exported_before_the_training_is_told_as_finished(exported: tuple[Run, Path]) -> None:
    run, out = exported
    (said,) = (number for number, line in enumerate(run.lines) if line.startswith("GGUF: "))
    (told,) = (number for number, line in enumerate(run.lines) if '"event":"finished"' in line)
    assert said < told
    assert resolve(str(out / "model")).gguf_weights == out / "model" / "gguf" / "tiny-q8_0.gguf"


def test_a_worker_answers_from_the_gguf(exported: tuple[Run, Path], tmp_path: Path) -> None:
    with running_system(tmp_path, slots=2, cache_gib=0.01) as system:
        model = TrainedModel.from_manifest(exported[1] / "model", name="tiny", job="j", created_s=0.0)
        TrainedModels(system.redis, system.keys).register(model)
        system.wait_for_worker(system.start("workers", model="tiny"), LOAD_S)
        rid = uuid.uuid4().hex
        options = SamplingOptions(max_new_tokens=8, temperature=0)
        Requests(system.redis, system.keys).submit(ChatRequest(rid, "u", "tiny", (Message("user", "hi"),), options))
        journal = Journal(system.redis, system.keys)
        wait_until(lambda: (head := journal.head(rid)) and head.ended, "the answer", LOAD_S)
        read = journal.read(rid)
        assert read is not None and read[0].status == "finished" and read[0].n
        log = (tmp_path / "process-0.log").read_text()
        assert "Engine openvino: " in log and "(q8_0, exported from it)" in log


def test_a_finished_training_that_is_started_again_makes_what_is_missing(
    exported: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(exported[1], tmp_path / "out"))
    shutil.rmtree(out / "model" / "gguf")
    again = finished(material, out, "export=q8_0")
    assert "This training is finished already." in again.text
    assert resolve(str(out / "model")).gguf_weights is not None
    once_more = finished(material, out, "export=q8_0")
    assert "Exporting" not in once_more.text


def test_a_training_that_is_stopped_while_it_exports_is_finished_without(
    exported: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    """Its model is whole: it is told, so that it is registered."""
    out = Path(shutil.copytree(exported[1], tmp_path / "out"))
    shutil.rmtree(out / "model")  # its checkpoints stay
    run = start(material, out, "export=q8_0")
    wait_until(lambda: list((out / "model").glob(".gguf-*")), "the begin of the export", LOAD_S)
    run.terminate()
    assert run.end() == 0, run.text
    assert len(run.events("finished")) == 1 and "the export was stopped" in run.text
    assert resolve(str(out / "model")).gguf_weights is None
    assert not list((out / "model").glob("*gguf*"))


def config(**fields: object) -> object:
    return checked_training({"name": "tiny", "model": "x", **fields})


@pytest.mark.parametrize(
    ("asked", "cuda", "wanted"),
    [("auto", False, "q8_0"), ("auto", True, ""), ("none", False, ""), ("f16", True, "f16")],
)
def test_a_gguf_is_made_where_cpus_serve_or_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str, cuda: bool, wanted: str
) -> None:
    monkeypatch.setattr(exporting, "_cuda", lambda: cuda)
    assert exporting._wanted(tmp_path / "model", config(export=asked)) == wanted


def test_an_adapter_alone_is_not_exported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exporting, "_cuda", lambda: False)
    export_result(tmp_path / "adapter", config(method="lora", save="adapter"), Reporter(0))
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_dies_leaves_the_training_finished(
    exported: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(exported[1] / "model", tmp_path / "model"))
    shutil.rmtree(folder / "gguf")
    monkeypatch.setattr(exporting, "PROGRAM", "tests.pipelines.training.dies")
    (folder / ".gguf-unfinished").mkdir()
    export_result(folder, config(export="q8_0"), Reporter(0))
    told = "the export ended with the code 1: the library has crashed"
    assert f"No GGUF, so torch serves it on a CPU too: {told}" in capfd.readouterr().out
    assert resolve(str(folder)).gguf_weights is None and not list(folder.glob("*gguf*"))


@pytest.mark.parametrize("refused", ["", "biases"])
def test_what_was_exported_or_refused_before_stays_unless_a_precision_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], refused: str
) -> None:
    monkeypatch.setattr(exporting, "_cuda", lambda: False)
    monkeypatch.setattr(exporting, "PROGRAM", "tests.pipelines.training.dies")
    folder = tmp_path / "model"
    (folder / "gguf").mkdir(parents=True)
    seal(folder, "manifest.json", {})
    if not refused:
        (folder / "gguf" / "m-f16.gguf").write_bytes(b"GGUF")
    of_model = sha256_of(folder / "manifest.json")
    seal(folder / "gguf", "manifest.json", {"model": of_model, "precision": "f16", "refused": refused})
    export_result(folder, config(), Reporter(0))
    assert "Exporting" not in capfd.readouterr().out
    export_result(folder, config(export="q8_0"), Reporter(0))
    assert "Exporting" in capfd.readouterr().out
