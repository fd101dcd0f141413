from pathlib import Path
from typing import Any

import pytest

from services.errors import ConfigurationError, EngineError
from services.models.catalogue import ModelSource
from tests.workers.text_decoders import packaged_source
from workers import transformers_engine
from workers.engine import EngineOptions
from workers.transformers_engine import TransformersEngine

torch = pytest.importorskip("torch")


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ConfigurationError, match="dtype 'int3' is not auto, fp32 or bf16"):
        TransformersEngine(ModelSource("m", "hub", hub_id="m"), EngineOptions(dtype="int3"))


def test_bf16_is_refused_where_answers_shall_be_repeatable() -> None:
    with pytest.raises(ConfigurationError, match="bf16 are not repeatable: unset CHATSERVER_DTYPE or"):
        TransformersEngine(ModelSource("m", "hub", hub_id="m"), EngineOptions(dtype="bf16", repeatable=True))


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    engine = TransformersEngine(ModelSource("m", "folder", tmp_path), EngineOptions())
    with pytest.raises(ConfigurationError, match=f"transformers cannot load '{tmp_path}'"):
        engine.start()
    assert not engine.alive()
    with pytest.raises(EngineError, match="not started"):
        _ = engine.limits


def test_a_cpu_uses_sdpa_and_says_why() -> None:
    assert transformers_engine._choose_attention(False, "float32") == ("sdpa", "flash-attn needs a GPU")
    assert transformers_engine._choose_dtype("bf16", cuda=False) == ("bfloat16", "asked for")


def test_a_gpu_that_computes_in_float32_uses_sdpa_whatever_is_installed() -> None:
    assert transformers_engine._choose_attention(True, "float32")[0] == "sdpa"


@pytest.mark.model
def test_a_gguf_is_converted_once_and_the_copy_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[dict[str, Any]] = []
    load = transformers_engine._from_pretrained

    def counted(location: str, options: dict[str, Any]) -> Any:
        loads.append(options)
        return load(location, options)

    monkeypatch.setattr(transformers_engine, "_from_pretrained", counted)
    engine = TransformersEngine(packaged_source(), EngineOptions(state_dir=tmp_path, dtype="bf16"))
    options = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    first = engine._plain(packaged_source(), options)
    second = engine._plain(packaged_source(), options)
    assert ["gguf_file" in used for used in loads] == [True, False, False]
    assert torch.equal(first.model.embed_tokens.weight, second.model.embed_tokens.weight)
    (copy,) = (tmp_path / "converted").iterdir()
    assert (copy / "model.safetensors").exists()


def test_a_conversion_that_fails_leaves_nothing_that_looks_like_a_checkpoint(tmp_path: Path) -> None:
    class Unsaveable:
        config = object()

        def save_pretrained(self, folder: Path) -> None:
            (folder / "half").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        transformers_engine._save_atomically(Unsaveable(), tmp_path / "converted" / "m")
    assert list((tmp_path / "converted").iterdir()) == []
