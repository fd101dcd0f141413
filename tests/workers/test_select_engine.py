from pathlib import Path

import pytest

from services.engines import ENGINES, EngineRow
from services.errors import ConfigurationError
from services.models.catalogue import ModelSource, resolve
from services.settings import Settings
from tests.workers import tiny_gguf
from workers import select_engine
from workers.engine import EngineOptions
from workers.select_engine import choose_engine, create_engine


class NewEngine:
    """Nothing but what choosing needs."""

    def __init__(self, source: ModelSource, options: EngineOptions) -> None:
        self.options = options

    @staticmethod
    def can_read(source: ModelSource) -> tuple[bool, str]:
        return True, "what it likes"


HUB = ModelSource("opt", "hub", hub_id="facebook/opt-350m")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_engine, "_num_gpus", lambda: 0)


@pytest.fixture
def packaged() -> ModelSource:
    try:
        return resolve("smollm2-135m")
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("no_gpu")
def test_on_a_cpu_openvino_serves_what_it_reads(packaged: ModelSource) -> None:
    pytest.importorskip("openvino_genai")
    engine, line = create_engine(packaged, EngineOptions())
    assert engine.name == "openvino"
    assert line.startswith("Engine openvino: no CUDA device, and smollm2-135m is a GGUF of architecture llama")


@pytest.mark.usefixtures("no_gpu")
def test_on_a_cpu_transformers_serves_the_rest_and_says_why() -> None:
    engine, line = create_engine(HUB, EngineOptions())
    assert engine.name == "transformers"
    assert "opt is neither a GGUF nor an OpenVINO IR" in line


def test_a_gpu_gets_transformers(monkeypatch: pytest.MonkeyPatch, packaged: ModelSource) -> None:
    monkeypatch.setattr(select_engine, "_num_gpus", lambda: 1)
    assert choose_engine(packaged) == ("transformers", "there is a CUDA device")


@pytest.mark.parametrize("installed", [True, False])
def test_several_gpus_get_vllm_or_the_log_says_how(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(select_engine, "_num_gpus", lambda: 4)
    monkeypatch.setattr(select_engine, "_installed", lambda row: installed)
    assert choose_engine(HUB) == (
        (
            "vllm",
            "there are 4 CUDA devices, and opt is what vllm loads or refuses;"
            " spreads the model over all of them, which transformers does not",
        )
        if installed
        else ("transformers", "there are 4 CUDA devices, and vllm is not installed: make vllm for speed")
    )


def test_several_gpus_get_transformers_for_what_vllm_cannot_read(
    monkeypatch: pytest.MonkeyPatch, packaged: ModelSource
) -> None:
    monkeypatch.setattr(select_engine, "_num_gpus", lambda: 2)
    name, reason = choose_engine(packaged)
    assert (name, reason) == (
        "transformers",
        "there are 2 CUDA devices, and smollm2-135m is a GGUF, and vllm reads checkpoints",
    )


@pytest.mark.usefixtures("no_gpu")
def test_asking_for_an_engine_overrides_the_rule(packaged: ModelSource) -> None:
    assert (
        create_engine(packaged, EngineOptions(), engine="transformers")[1] == "Engine transformers: it was asked for."
    )


def test_openvino_refuses_a_model_that_it_cannot_read() -> None:
    with pytest.raises(ConfigurationError, match=r"openvino cannot serve opt.*use transformers"):
        choose_engine(HUB, "openvino")


def test_an_unknown_engine_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match="unknown engine 'vlmm'; known: auto, openvino, llamacpp, vllm, transformers"
    ):
        choose_engine(HUB, "vlmm")


def test_an_ir_folder_is_read_by_openvino(tmp_path: Path) -> None:
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    assert choose_engine(ModelSource("ir", "folder", tmp_path), "openvino")[0] == "openvino"


def test_a_new_engine_is_a_file_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = EngineRow(
        "tests.workers.test_select_engine:NewEngine", packages=(), pip="", install="", device="any", advantage="newer"
    )
    monkeypatch.setattr(select_engine, "ENGINES", {"new": row, **ENGINES})
    monkeypatch.setattr(select_engine, "NAMES", ("auto", "new", *ENGINES))
    monkeypatch.setattr(select_engine, "_num_gpus", lambda: 1)
    engine, line = create_engine(HUB, EngineOptions(slots=7))
    assert isinstance(engine, NewEngine) and engine.options.slots == 7
    assert line == "Engine new: there is a CUDA device, and opt is what it likes; newer."


@pytest.mark.usefixtures("no_gpu")
def test_what_lacks_for_a_faster_engine_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    monkeypatch.setattr(select_engine, "_installed", lambda row: False)
    name, reason = choose_engine(ModelSource("ir", "folder", tmp_path))
    assert name == "transformers"
    assert reason == (
        "no CUDA device, and openvino-genai is not installed: pip install openvino-genai for speed,"
        " and ir is no GGUF, which is what llamacpp reads"
    )


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("installed", [True, False])
def test_a_gguf_that_openvino_cannot_read_goes_to_llamacpp_or_the_log_says_how(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installed: bool
) -> None:
    monkeypatch.setattr(select_engine, "_installed", lambda row: installed)
    name, reason = choose_engine(ModelSource("tiny", "gguf", tiny_gguf.build(tmp_path / "tiny.gguf")))
    assert reason.startswith(
        "no CUDA device, and tiny is a GGUF of architecture phi3, which openvino cannot read, and "
    )
    if installed:
        assert name == "llamacpp" and "tiny is a GGUF, which llamacpp reads; several times faster" in reason
    else:
        assert name == "transformers" and "llama-cpp-python is not installed: make llamacpp for speed" in reason


def test_options_of_an_engine_are_settings_of_the_same_names() -> None:
    options = EngineOptions.from_settings(Settings(slots=3, dtype="fp32"))
    assert (options.slots, options.dtype) == (3, "fp32")
    assert EngineOptions.from_settings(Settings()) == EngineOptions(state_dir=Settings().state_dir)
