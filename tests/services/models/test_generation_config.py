"""One reader of generation_config.json, with one opinion of a damaged one."""

from pathlib import Path

import pytest

from services.errors import ConfigurationError
from services.models.catalogue import ModelSource
from services.models.generation_config import NAME, end_token_ids, read_generation_config
from services.models.sampling_defaults import named_sampling


def test_the_file_is_optional(tmp_path: Path) -> None:
    assert read_generation_config(str(tmp_path)) == {} and end_token_ids(str(tmp_path)) == set()


@pytest.mark.parametrize(("text", "ends"), [("2", {2}), ("[2, 7]", {2, 7}), ("null", set())])
def test_it_names_the_tokens_that_end_an_answer(tmp_path: Path, text: str, ends: set[int]) -> None:
    (tmp_path / NAME).write_text(f'{{"eos_token_id": {text}, "transformers_version": "9.9"}}')
    assert end_token_ids(str(tmp_path)) == ends


@pytest.mark.parametrize("text", ["", '{"eos_token_id": 2', "[1]", "\x00\x00"])
def test_a_damaged_file_is_refused_by_whoever_reads_it(tmp_path: Path, text: str) -> None:
    """Sampling passed over it without a word, and an answer may not end without its end tokens."""
    (tmp_path / NAME).write_text(text)
    for read in (end_token_ids, lambda where: named_sampling(ModelSource("m", "folder", Path(where)))):
        with pytest.raises(ConfigurationError, match=r"generation_config.json is damaged") as refusal:
            read(str(tmp_path))
        assert "download the model again" in refusal.value.remedy


def test_end_tokens_that_are_no_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"eos_token_id": ["</s>"]}')
    with pytest.raises(ConfigurationError, match=r"eos_token_id=\['</s>'\] is not a token id"):
        end_token_ids(str(tmp_path))
