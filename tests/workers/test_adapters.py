"""An adapter on its base: what is served is the merged model, and what does not fit is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.errors import ConfigurationError
from services.models.catalogue import resolve
from workers.adapters import merged
from workers.engine import EngineOptions
from workers.select_engine import choose_engine, create_engine


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("adapters") / "base"
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """As PEFT saves one, on the attention of both layers."""
    from peft import LoraConfig, get_peft_model

    folder = base.parent / "adapter"
    config = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(loaded(base), config).save_pretrained(str(folder))
    return folder


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def put(adapter: Path, base: Path) -> Any:
    return merged(loaded(base), resolve(str(adapter)))


@pytest.fixture
def changed(adapter: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the adapter whose configuration says something else."""

    def change(**fields: object) -> Path:
        folder = shutil.copytree(adapter, tmp_path / "changed")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))
        return folder

    return change


def test_an_adapter_on_its_base_computes_what_peft_does_unmerged(base: Path, adapter: Path) -> None:
    import torch
    from peft import PeftModel

    ids = torch.arange(12)[None]
    with torch.no_grad():
        bare = loaded(base).eval()(ids).logits
        unmerged = PeftModel.from_pretrained(loaded(base), str(adapter)).eval()(ids).logits
        ours = put(adapter, base)
        assert torch.allclose(ours.eval()(ids).logits, unmerged, atol=1e-5)
    assert not torch.allclose(bare, unmerged, atol=1e-2)
    assert not any("lora" in name for name, _ in ours.named_modules())


def test_a_target_that_the_base_lacks_is_named(base: Path, changed: Callable[..., Path]) -> None:
    """PEFT is content when one of the names is right."""
    folder = changed(target_modules=["q_proj", "v_proj", "query_key_value"])
    with pytest.raises(
        ConfigurationError, match=r"target_modules names 'query_key_value', which is no layer of it; name"
    ):
        put(folder, base)


def test_weights_that_fit_nowhere_are_no_adapter_of_this_base(base: Path, changed: Callable[..., Path]) -> None:
    """PEFT warns and leaves them out."""
    with pytest.raises(ConfigurationError, match=r"4 of its weights fit nowhere, such as .*v_proj.lora_A"):
        put(changed(target_modules=["q_proj"]), base)


def test_weights_that_are_missing_are_not_random(base: Path, changed: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError, match=r"4 of its weights are missing, such as .*o_proj.lora_A"):
        put(changed(target_modules=["q_proj", "v_proj", "o_proj"]), base)


def test_an_adapter_of_a_model_of_another_size_is_refused(base: Path, changed: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError, match=r"does not fit '.*/base': size mismatch for .*lora_"):
        put(changed(r=4), base)


def test_another_kind_of_adapter_is_named(base: Path, changed: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError, match=r"peft_type=IA3 in .*, and only LORA is served; merge it"):
        put(changed(peft_type="IA3", feedforward_modules=[]), base)


def test_an_adapter_without_its_weights_is_refused_by_the_engine(changed: Callable[..., Path]) -> None:
    folder = changed()
    (folder / "adapter_model.safetensors").unlink()
    engine, _ = create_engine(resolve(str(folder)), EngineOptions(), engine="transformers")
    with pytest.raises(ConfigurationError, match=r"transformers cannot load"):
        engine.start()


def test_a_base_that_cannot_be_loaded_is_named(changed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = resolve(str(changed(base_model_name_or_path="nobody/nothing")))
    engine, _ = create_engine(source, EngineOptions(), engine="transformers")
    with pytest.raises(ConfigurationError, match=r"cannot load 'nobody/nothing', the base of the adapter 'changed'"):
        engine.start()


def test_openvino_puts_no_adapter_on_a_model_and_says_what_does(changed: Callable[..., Path]) -> None:
    """Over a GGUF the library answers as the bare model would, and prints a warning."""
    pytest.importorskip("openvino_genai")
    source = resolve(str(changed(base_model_name_or_path="smollm2-135m")))
    assert choose_engine(source)[0] == "transformers"
    with pytest.raises(ConfigurationError, match=r"adapter on smollm2-135m, .*; use transformers, or serve the merged"):
        choose_engine(source, "openvino")
