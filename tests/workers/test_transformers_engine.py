import queue
from pathlib import Path
from typing import Any

import pytest

from services.errors import ConfigurationError, EngineError
from services.models.catalogue import ModelSource
from tests.workers import tiny_gguf
from workers import transformers_engine
from workers.engine import EngineEvent, EngineOptions, Sampling
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


_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True}


@pytest.mark.parametrize(
    ("kind", "sizes", "attention"),
    [
        ("OPT", {"ffn_dim": 64, "word_embed_proj_dim": 32}, "sdpa"),
        ("Gemma2", {"num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8}, "eager"),
        ("GptOss", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 32, **_EXPERTS}, "eager"),
    ],
)
def test_a_model_of_this_kind_is_loaded_and_says_what_the_library_generates(
    tmp_path: Path, kind: str, sizes: dict[str, Any], attention: str
) -> None:
    """None of them was served: two have no sdpa, OPT asks its cache for a length, and a training leaves the logits of
    routers on, for which a served prompt has no mask."""
    model = random_model(kind, sizes)
    model.save_pretrained(tmp_path)
    model.config.output_router_logits = False
    prompt = [5, 17, 3, 90, 44, 8]
    wanted = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)[0].tolist()
    engine = TransformersEngine(ModelSource("tiny", "folder", tmp_path), EngineOptions(slots=2, cache_gib=0.01))
    engine.start()
    assert f", {attention} (" in engine.description
    heard: queue.Queue[EngineEvent] = queue.Queue()
    try:
        for _ in range(2):  # the second one finds its prompt in the cache
            engine.submit("r", prompt, Sampling(max_new_tokens=12, temperature=0.0), heard.put)
            said: list[int] = []
            while (event := heard.get(timeout=60)).outcome is None:
                said += event.token_ids
            assert event.outcome == "finished"
            assert [*prompt, *said, *event.token_ids] == wanted
    finally:
        engine.stop()


def random_model(kind: str, sizes: dict[str, Any]) -> Any:
    import transformers

    plain = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=128, **plain, **sizes, **({} if kind == "OPT" else {"intermediate_size": 64}), pad_token_id=1
    )
    config.initializer_range = 0.5
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_a_gguf_is_converted_once_and_the_copy_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[dict[str, Any]] = []
    load = transformers_engine._from_pretrained

    def counted(location: str, options: dict[str, Any]) -> Any:
        loads.append(options)
        return load(location, options)

    monkeypatch.setattr(transformers_engine, "_from_pretrained", counted)
    source = ModelSource("tiny", "gguf", tiny_gguf.build(tmp_path / "tiny.gguf"))
    engine = TransformersEngine(source, EngineOptions(state_dir=tmp_path, dtype="bf16"))
    options = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    first = engine._plain(source, options)
    second = engine._plain(source, options)
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
