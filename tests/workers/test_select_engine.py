from pathlib import Path

import pytest

from services.errors import ConfigurationError
from services.models.catalogue import ModelSource, resolve
from workers import select_engine
from workers.select_engine import choose_engine, create_engine

HUB = ModelSource("opt", "hub", hub_id="facebook/opt-350m")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_engine, "_cuda_available", lambda: False)


@pytest.fixture
def packaged() -> ModelSource:
    try:
        return resolve("smollm2-135m")
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("no_gpu")
def test_on_a_cpu_openvino_serves_what_it_reads(packaged: ModelSource) -> None:
    pytest.importorskip("openvino_genai")
    engine, line = create_engine(packaged)
    assert engine.name == "openvino"
    assert line.startswith("Engine openvino: no CUDA device, and smollm2-135m is a GGUF of architecture llama")


@pytest.mark.usefixtures("no_gpu")
def test_on_a_cpu_transformers_serves_the_rest_and_says_why() -> None:
    engine, line = create_engine(HUB)
    assert engine.name == "transformers"
    assert "opt is neither a GGUF nor an OpenVINO IR" in line


def test_a_gpu_gets_transformers(monkeypatch: pytest.MonkeyPatch, packaged: ModelSource) -> None:
    monkeypatch.setattr(select_engine, "_cuda_available", lambda: True)
    assert choose_engine(packaged) == ("transformers", "there is a CUDA device")


@pytest.mark.usefixtures("no_gpu")
def test_asking_for_an_engine_overrides_the_rule(packaged: ModelSource) -> None:
    assert create_engine(packaged, engine="transformers")[1] == "Engine transformers: it was asked for."


def test_openvino_refuses_a_model_that_it_cannot_read() -> None:
    with pytest.raises(ConfigurationError, match=r"openvino cannot serve opt.*use transformers"):
        choose_engine(HUB, "openvino")


def test_an_unknown_engine_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="unknown engine 'vlmm'; known: auto, transformers, openvino"):
        choose_engine(HUB, "vlmm")


def test_an_ir_folder_is_read_by_openvino(tmp_path: Path) -> None:
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    assert choose_engine(ModelSource("ir", "folder", tmp_path), "openvino")[0] == "openvino"
