from pathlib import Path

import pytest

from pipelines.training.models import choose_arithmetic, save_generation_config
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from services.models.catalogue import ModelSource, resolve
from services.models.sampling_defaults import named_sampling
from services.tokens.tokenization import load_tokenizer


def test_a_tuned_model_is_sampled_as_its_base_and_stops_where_it_learnt_to(tmp_path: Path) -> None:
    base = resolve("smollm2-135m")
    tokenizer = load_tokenizer(base)
    save_generation_config(tmp_path, tokenizer, base)
    tuned = ModelSource("tuned", "folder", tmp_path)
    assert named_sampling(tuned) == named_sampling(base) == {"temperature": 0.2}
    save_generation_config(tmp_path, tokenizer, ModelSource("plain", "folder", tmp_path / "none"))
    assert named_sampling(tuned) == {}
    assert str(tokenizer.stop_token_ids[0]) in (tmp_path / "generation_config.json").read_text()


def test_a_model_without_sdpa_is_trained_without_it(tmp_path: Path) -> None:
    """gpt-oss and Gemma 2 could not be loaded on a CPU, nor on a GPU without flash-attn."""
    from transformers import GptOssConfig

    GptOssConfig().save_pretrained(tmp_path)
    config = TrainingConfig(name="tiny", model=str(tmp_path), precision="fp32")
    found = choose_arithmetic(config)
    assert found.attention == "eager"
    assert found.attention_reason.endswith("GptOssForCausalLM has no sdpa")
    with pytest.raises(ConfigurationError, match="attention=sdpa: GptOssForCausalLM has no sdpa; use attention=auto"):
        choose_arithmetic(config.model_copy(update={"attention": "sdpa"}))
    assert choose_arithmetic(config.model_copy(update={"model": "smollm2-135m"})).attention == "sdpa"
