"""A request that leaves an option open gets what the model asks for."""

import json
import logging
from pathlib import Path

import pytest
from gguf import GGUFWriter

from services.models.catalogue import ModelSource, resolve
from services.models.sampling_defaults import named_sampling, sampling_defaults
from services.wire.messages import SamplingDefaults, SamplingOptions

ALL = frozenset({"temperature", "top_p", "top_k", "repetition_penalty", "seed"})


def checkpoint(folder: Path, **config: object) -> ModelSource:
    (folder / "generation_config.json").write_text(json.dumps(config))
    return ModelSource("m", "folder", folder)


def test_the_packaged_model_is_asked_at_a_low_temperature() -> None:
    """At 0.7 it answered the README's first question with nonsense in two of eight tries."""
    assert sampling_defaults(resolve("smollm2-135m"), ALL, 1_000) == SamplingDefaults(temperature=0.2)


def test_a_checkpoint_says_it_in_its_generation_config(tmp_path: Path) -> None:
    source = checkpoint(tmp_path, temperature=0.6, top_p=0.95, top_k=20, do_sample=True, eos_token_id=2)
    assert named_sampling(source) == {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    assert sampling_defaults(source, ALL, 1_000) == SamplingDefaults(0.6, 0.95, 20)


def test_a_model_that_says_nothing_is_sampled_as_any_other(tmp_path: Path) -> None:
    assert sampling_defaults(ModelSource("m", "folder", tmp_path), ALL, 1_000) == SamplingDefaults()
    assert sampling_defaults(checkpoint(tmp_path, eos_token_id=2), ALL, 1_000) == SamplingDefaults()


def test_a_gguf_file_says_it_in_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_float32("general.sampling.temp", 0.6)
    writer.add_int32("general.sampling.top_k", 40)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert named_sampling(ModelSource("m", "gguf", path)) == {"temperature": 0.6, "top_k": 40}


def test_a_value_that_no_request_may_have_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert named_sampling(checkpoint(tmp_path, top_k=-1, top_p=0.9)) == {"top_p": 0.9}
    assert "sampling.top_k=-1" in caplog.text


def test_an_option_that_the_engine_lacks_does_not_fail_every_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = checkpoint(tmp_path, repetition_penalty=1.05, temperature=0.6)
    with caplog.at_level(logging.WARNING):
        assert sampling_defaults(source, frozenset({"temperature"}), 1_000) == SamplingDefaults(0.6)
    assert "repetition_penalty" in caplog.text


def test_a_models_own_top_k_above_its_vocabulary_is_all_of_it_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine refused every request that left top_k open."""
    source = checkpoint(tmp_path, top_k=1_001, temperature=0.6)
    with caplog.at_level(logging.WARNING):
        assert sampling_defaults(source, ALL, 1_000) == SamplingDefaults(0.6)
    assert caplog.text.count("top_k 1001") == 1
    assert sampling_defaults(checkpoint(tmp_path, top_k=1_000), ALL, 1_000) == SamplingDefaults(top_k=1_000)


def test_a_request_that_names_an_option_gets_it() -> None:
    defaults = SamplingDefaults(0.6, 0.95, 20, 1.1)
    assert SamplingOptions().over(defaults) == defaults
    assert SamplingOptions(temperature=0.0, top_k=0).over(defaults) == SamplingDefaults(0.0, 0.95, 0, 1.1)


def test_an_open_option_is_not_sent() -> None:
    assert SamplingOptions(top_k=0).encoded() == {"max_new_tokens": 512, "top_k": 0, "seed": None, "stop": ()}
