"""Whether a model keeps packed conversations apart, asked of tiny models of the families in question."""

from typing import Any

import pytest

from pipelines.training.packing import sees_across

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma": {"num_key_value_heads": 2, "head_dim": 8},
    "phi3": {"num_key_value_heads": 2},
    "gpt2": {},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64},
    "falcon": {"alibi": False, "new_decoder_architecture": False},
    "biogpt": {},
    "lfm2": {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
}
APART = ("llama", "qwen3", "gemma", "phi3", "gpt2", "falcon")  # Falcon since transformers 5.24


def tiny(family: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES[family]})
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_lets_packed_conversations_see_each_other_is_noticed(family: str) -> None:
    """OPT, the README's example, was packed as all are: each conversation learnt from the one before it."""
    assert sees_across(tiny(family), "float32") == (family not in APART)


def test_a_model_is_as_it_was_after_it_was_asked() -> None:
    model = tiny("llama").train()
    sees_across(model, "float32")
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
