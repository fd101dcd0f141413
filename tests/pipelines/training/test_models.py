from pathlib import Path

from pipelines.training.models import save_generation_config
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
