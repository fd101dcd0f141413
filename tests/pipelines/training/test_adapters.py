"""On which layers an adapter is put, by the names that the model has."""

import pytest

from pipelines.training.adapters import adapter_targets
from pipelines.training.models import adapter_of
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from tests.pipelines.training.test_packing import tiny


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("llama", ["q_proj", "v_proj"]),
        ("phi3", ["qkv_proj"]),
        ("gpt2", ["c_attn"]),
        ("falcon", ["query_key_value"]),
        ("opt", ["q_proj", "v_proj"]),
    ],
)
def test_without_targets_the_attention_gets_adapters_under_its_own_names(family: str, targets: list[str]) -> None:
    """The names of Llama were the default of all, and PEFT found none of them in Phi-3, GPT-2 and Falcon."""
    model = tiny(family)
    assert adapter_targets((), model) == targets
    assert trainable(family, ()) > 0


def trainable(family: str, targets: tuple[str, ...]) -> int:
    """The weights that would be trained, once the adapter is on a model."""
    from peft import get_peft_model

    model = tiny(family)
    config = TrainingConfig(name="tiny", model="m", method="lora", lora_targets=targets)
    adapted = get_peft_model(model, adapter_of(config, model))
    return sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_all_linear_means_all_linear_layers(family: str) -> None:
    assert trainable(family, ("all-linear",)) > trainable(family, ())


def test_a_mistyped_name_beside_a_right_one_is_refused_with_the_models_own_names() -> None:
    with pytest.raises(ConfigurationError, match=r"'v_prj' is no layer .*; its layers: .*k_proj.*q_proj"):
        adapter_targets(("q_proj", "v_prj"), tiny("llama"))


@pytest.mark.parametrize("name", ["wte", "lm_head"])
def test_tied_embeddings_get_no_adapter(name: str) -> None:
    """The run reported the loss 4.97, and the model that it saved had 23.3: one of two copies was merged."""
    with pytest.raises(ConfigurationError, match="embeddings and of its output at once"):
        adapter_targets((name,), tiny("gpt2"))
    assert adapter_targets(("embed_tokens",), tiny("llama")) == ["embed_tokens"]


def test_the_output_layer_gets_no_adapter() -> None:
    """TRL computes the loss from the layer's own weights: the adapter had no gradient."""
    model = tiny("opt")
    model.lm_head.weight = type(model.lm_head.weight)(model.lm_head.weight.clone())
    with pytest.raises(ConfigurationError, match="'lm_head' is the output layer"):
        adapter_targets(("lm_head",), model)
