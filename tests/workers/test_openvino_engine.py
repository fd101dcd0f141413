import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.errors import ConfigurationError, EngineError
from services.models.catalogue import ModelSource
from services.tokens.tokenization import load_tokenizer
from tests.workers.text_decoders import packaged_source
from workers.engine import ENGINE_LOST, EngineEvent, EngineOptions, ModelLimits, Sampling
from workers.openvino_engine import OpenVinoEngine, shape_of

openvino_genai = pytest.importorskip("openvino_genai")

LIMITS = ModelLimits(100, 50, 2, frozenset({"logprobs"}))


class FakeHandle:
    """Answers 7, 7, … until told to end."""

    def __init__(self) -> None:
        self.status = "RUNNING"
        self.pending: list[int] = []
        self.cancelled = False

    def can_read(self) -> bool:
        return bool(self.pending)

    def read(self) -> dict[int, Any]:
        ids, self.pending = self.pending, []
        return {0: SimpleNamespace(generated_ids=ids, generated_log_probs=[-0.5] * len(ids))}

    def get_status(self) -> Any:
        return SimpleNamespace(name=self.status)

    def cancel(self) -> None:
        self.cancelled = True


class FakePipeline:
    """Ends every request in its first step with the status that the test chose."""

    def __init__(self, status: str = "FINISHED", refuse: str = "") -> None:
        self.status = status
        self.refuse = refuse
        self.handles: list[FakeHandle] = []

    def add_request(self, number: int, prompt: Any, config: Any) -> FakeHandle:
        if self.refuse and prompt.data[0][0] == 66:
            raise RuntimeError(self.refuse)
        self.handles.append(FakeHandle())
        return self.handles[-1]

    def has_non_finished_requests(self) -> bool:
        return bool(self.handles)

    def step(self) -> None:
        for handle in self.handles:
            handle.pending, handle.status = [7, 7], self.status
        self.handles = []
        if self.status == "RAISE":
            raise RuntimeError("boom")


class Rig:
    def __init__(self, pipelines: list[Any]) -> None:
        self.events: dict[str, list[EngineEvent]] = {}
        self.sampling = Sampling(5)
        self.engine = OpenVinoEngine(
            ModelSource("fake", "gguf", Path("fake.gguf")), EngineOptions(), make_pipeline=self._next
        )
        self.engine._limits = LIMITS
        self._pipelines = iter(pipelines)

    def _next(self) -> Any:
        made = next(self._pipelines)
        if isinstance(made, Exception):
            raise made
        return made

    def ends(self, *prompts: int) -> list[tuple[str | None, str]]:
        """(outcome, reason) per request, each with a one-token prompt."""
        for prompt in prompts:
            self.engine.submit(f"r{prompt}", [prompt], self.sampling, self._record)
        thread = self.engine._thread
        assert thread is not None
        while len([r for r in self.events.values() if r[-1].outcome]) < len(prompts):
            thread.join(0.01)
        return [(self.events[f"r{prompt}"][-1].outcome, self.events[f"r{prompt}"][-1].reason) for prompt in prompts]

    def _record(self, event: EngineEvent) -> None:
        self.events.setdefault(event.request_id, []).append(event)


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.engine.stop()


def started(rigs: list[Rig], *pipelines: Any) -> Rig:
    rig = Rig(list(pipelines))
    rigs.append(rig)
    rig.engine.start()
    return rig


def test_a_request_that_openvino_gives_up_is_out_of_memory_and_keeps_its_tokens(rigs: list[Rig]) -> None:
    rig = started(rigs, FakePipeline("IGNORED"))
    assert rig.ends(1) == [("failed", "out_of_memory")]
    assert rig.events["r1"][-1].token_ids == (7, 7)
    assert not rig.events["r1"][-1].logprobs


def test_the_tokens_of_a_request_that_openvino_gives_up_keep_their_logprobs(rigs: list[Rig]) -> None:
    """Without them the worker could not take the tokens, and told of a fault of its own."""
    rig = started(rigs, FakePipeline("IGNORED"))
    rig.sampling = Sampling(5, logprobs=True)
    assert rig.ends(1) == [("failed", "out_of_memory")]
    assert rig.events["r1"][-1].logprobs == ((-0.5, ()), (-0.5, ()))


def test_a_request_refused_at_its_add_fails_alone(rigs: list[Rig]) -> None:
    rig = started(rigs, FakePipeline(refuse="no such thing"))
    assert rig.ends(66, 1) == [("failed", "engine_error"), ("finished", "length")]
    assert "no such thing" in rig.events["r66"][-1].message


def test_an_engine_that_cannot_reload_after_a_failed_step_is_dead(rigs: list[Rig]) -> None:
    rig = started(rigs, FakePipeline("RAISE"), RuntimeError("file is gone"))
    thread = rig.engine._thread
    assert thread is not None
    assert rig.ends(1) == [("failed", ENGINE_LOST)]
    thread.join(20)
    assert not rig.engine.alive()
    with pytest.raises(EngineError, match="not running"):
        rig.ends(2)


def test_after_a_failed_step_the_reloaded_pipeline_serves(rigs: list[Rig]) -> None:
    rig = started(rigs, FakePipeline("RAISE"), FakePipeline())
    assert rig.ends(1) == [("failed", ENGINE_LOST)]
    assert rig.ends(1, 2)[1] == ("finished", "length")


def test_a_model_that_cannot_be_loaded_is_a_configuration_error() -> None:
    rig = Rig([RuntimeError("bad magic")])
    with pytest.raises(ConfigurationError, match=r"openvino cannot load fake\.gguf: bad magic"):
        rig.engine.start()
    assert not rig.engine.alive()


def test_the_shape_of_the_packaged_model_is_read_from_its_header() -> None:
    path = packaged_source().path
    assert path is not None
    shape = shape_of(path)
    assert (shape.vocab_size, shape.context_tokens) == (49_152, 8192)
    assert shape.cache_values_per_token == 30 * 3 * 64 * 2


def test_the_gguf_tokenizer_agrees_with_the_one_that_openvino_builds_from_the_same_file() -> None:
    ours = load_tokenizer(packaged_source()).decoder()
    theirs = openvino_genai.Tokenizer(str(packaged_source().path))
    for text in ("Hello, world! It's 2024.", "naïve café\n\n  x = [1, 23]\t# 世界 😀", "  leading and trailing  "):
        expected = theirs.encode(text, add_special_tokens=False).input_ids.data[0].tolist()
        assert ours.encode(text, add_special_tokens=False).ids == expected


def ir_folder(folder: Path, context_tokens: int) -> Path:
    config = {
        "vocab_size": 10,
        "max_position_embeddings": context_tokens,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_size": 32,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_shape_of_an_ir_folder_is_read_from_its_config(tmp_path: Path) -> None:
    assert shape_of(ir_folder(tmp_path, 20)).cache_values_per_token == 3 * 4 * 8 * 2


def test_a_repeatable_engine_accepts_less_context_since_its_cache_holds_fp32(tmp_path: Path) -> None:
    source = ModelSource("ir", "folder", ir_folder(tmp_path, 10**9))
    as_usual = OpenVinoEngine(source, EngineOptions())
    repeatable = OpenVinoEngine(source, EngineOptions(repeatable=True))
    bytes_of_a_block = 32 * 3 * 4 * 8 * 2
    assert as_usual.limits.context_tokens == int(2**30 / (bytes_of_a_block * 1.25)) * 32
    assert repeatable.limits.context_tokens == 2**30 // (bytes_of_a_block * 4) * 32


def test_a_part_of_a_gib_is_a_part_of_the_cache(tmp_path: Path) -> None:
    """OpenVINO takes whole GiB: 0.01 was one."""
    source = ModelSource("ir", "folder", ir_folder(tmp_path, 10**9))
    whole, half = (OpenVinoEngine(source, EngineOptions(cache_gib=gib)).limits.cache_tokens for gib in (1.0, 0.5))
    assert abs(whole - 2 * half) <= 32


def test_a_hub_id_cannot_be_read() -> None:
    assert OpenVinoEngine.can_read(ModelSource("m", "hub", hub_id="a/m"))[0] is False


def test_weights_that_may_only_be_read_are_copied_once(tmp_path: Path) -> None:
    """OpenVINO opens a GGUF for writing: one in an image, on a read-only file system, could not be served."""
    weights = tmp_path / "model.gguf"
    shutil.copy("/bin/sleep", weights)
    weights.chmod(0o755)
    with subprocess.Popen([weights, "60"]) as running:  # so that nobody may write to it, root neither
        engine = OpenVinoEngine(ModelSource("m", "gguf", weights), EngineOptions(state_dir=tmp_path / "state"))
        copy = engine._writable_weights()
        assert copy is not None and copy != weights and copy.read_bytes() == weights.read_bytes()
        written = copy.stat().st_mtime_ns
        assert engine._writable_weights() == copy and copy.stat().st_mtime_ns == written
        assert list(copy.parent.iterdir()) == [copy]
        others = [copy.with_name(name) for name in ("model-1-2.gguf", "model-f16-1-2.gguf")]
        for other in others:
            other.write_bytes(b"GGUF")
        copy.unlink()
        assert engine._writable_weights() == copy
        assert [other.exists() for other in others] == [False, True], "what the same file was before is deleted"
        running.kill()


def test_weights_that_may_be_written_are_served_where_they_are(tmp_path: Path) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"GGUF")
    engine = OpenVinoEngine(ModelSource("m", "gguf", weights), EngineOptions(state_dir=tmp_path / "state"))
    assert engine._writable_weights() == weights
