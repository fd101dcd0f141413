"""The adapter over llama.cpp: what the contract suite cannot see."""

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from services.errors import ConfigurationError
from services.models.catalogue import ModelSource, resolve
from services.tokens.tokenization import load_tokenizer
from tests.workers import tiny_gguf
from workers.engine import ENGINE_LOST, Engine, EngineEvent, EngineOptions, Sampling
from workers.llamacpp_engine import LlamaCppEngine, values_per_token
from workers.select_engine import adapter_of
from workers.slots import DecodeFailed, Row

PROMPT = [1, 40, 41, 42, 43]
CULPRIT = 99  # a prompt that begins with it cannot be computed


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return ModelSource("tiny", "gguf", tiny_gguf.build(tmp_path_factory.mktemp("tiny") / "tiny.gguf"))


def ended(events: SimpleQueue[EngineEvent]) -> EngineEvent:
    """The end of a request, with all its tokens."""
    tokens: list[int] = []
    while True:
        event = events.get(timeout=120)
        tokens += event.token_ids
        if event.outcome:
            return EngineEvent(event.request_id, tuple(tokens), event.outcome, event.reason, event.message)


def submitted(engine: Engine, name: str, prompt: list[int], **options: Any) -> SimpleQueue[EngineEvent]:
    events: SimpleQueue[EngineEvent] = SimpleQueue()
    engine.submit(name, prompt, Sampling(**{"max_new_tokens": 8, **options}), events.put)
    return events


class FailingModel:
    """A model that says 7, except that a batch with the culprit cannot be computed."""

    rewinds = shares = True

    def __init__(self, *, no_room: bool) -> None:
        self._no_room = no_room

    def decode(self, rows: list[Row]) -> None:
        if any(CULPRIT in row.tokens for row in rows):
            raise DecodeFailed("as asked", no_room=self._no_room)

    def logits(self, rows: list[Row]) -> Iterator[tuple[Row, Any]]:
        for row in rows:
            if row.asked:
                yield row, np.eye(tiny_gguf.VOCABULARY, dtype=np.float32)[7]

    def forget(self, slot: int, begin: int) -> None: ...
    def share(self, source: int, target: int, end: int) -> None: ...
    def close(self) -> None: ...


@pytest.mark.parametrize(("no_room", "code"), [(True, "out_of_memory"), (False, "engine_error")])
def test_a_batch_that_fails_harms_only_the_request_that_is_to_blame(
    tiny: ModelSource, no_room: bool, code: str
) -> None:
    engine = LlamaCppEngine(tiny, EngineOptions(slots=3), make_model=lambda: FailingModel(no_room=no_room))  # type: ignore[arg-type,return-value]
    engine.start()
    healthy = submitted(engine, "healthy", PROMPT, max_new_tokens=100)
    culprit = submitted(engine, "culprit", [CULPRIT, *PROMPT])
    assert (ended(culprit).outcome, ended(submitted(engine, "next", PROMPT)).token_ids) == ("failed", (7,) * 8)
    end = ended(healthy)
    assert (end.outcome, len(end.token_ids)) == ("finished", 100)
    assert ended(submitted(engine, "again", [CULPRIT])).reason == code
    engine.stop()


def test_an_engine_that_cannot_load_its_model_again_is_dead(tiny: ModelSource) -> None:
    class Broken(FailingModel):
        def decode(self, rows: list[Row]) -> None:
            raise RuntimeError("boom")

    made = iter([Broken(no_room=False)])
    engine = LlamaCppEngine(tiny, EngineOptions(), make_model=lambda: next(made))  # type: ignore[arg-type,return-value]
    engine.start()
    thread = engine._thread
    assert thread is not None
    end = ended(submitted(engine, "r", PROMPT))
    assert (end.outcome, end.reason) == ("failed", ENGINE_LOST)
    thread.join(20)
    assert not engine.alive()
    engine.stop()


def test_what_is_no_gguf_of_a_causal_model_is_not_read(tiny: ModelSource, tmp_path: Path) -> None:
    assert LlamaCppEngine.can_read(tiny) == (True, "a GGUF, which llamacpp reads")
    assert not LlamaCppEngine.can_read(ModelSource("m", "hub", hub_id="a/m"))[0]
    assert not LlamaCppEngine.can_read(ModelSource("a", "adapter", tmp_path, base=tiny))[0]
    encoder = ModelSource("e", "gguf", tiny_gguf.build(tmp_path / "e.gguf", "nomic-bert"))
    assert LlamaCppEngine.can_read(encoder) == (False, "a GGUF of architecture nomic-bert, which llamacpp cannot serve")


def test_layers_may_cache_different_numbers_of_heads() -> None:
    shape = {"general.architecture": "x", "x.block_count": 3, "x.embedding_length": 64, "x.attention.head_count": 4}
    assert values_per_token(shape) == 3 * 4 * 2 * 16
    assert values_per_token({**shape, "x.attention.head_count_kv": [1, 2, 0]}) == 3 * 2 * 16
    assert values_per_token({**shape, "x.attention.key_length": 20, "x.attention.value_length": 10}) == 3 * 4 * 30


def test_the_context_is_what_the_cache_holds_and_in_a_repeatable_engine_a_slots_part_of_it(tiny: ModelSource) -> None:
    cells = 512  # of 2 layers, 64 keys and 64 values in 2 bytes each
    options = {"slots": 8, "cache_gib": cells * 512 / 2**30}
    assert LlamaCppEngine(tiny, EngineOptions(**options)).limits.context_tokens == tiny_gguf.CONTEXT
    repeatable = LlamaCppEngine(tiny, EngineOptions(**options, repeatable=True))
    assert repeatable.limits.context_tokens == cells // 8


class TestWithTheLibrary:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("llama_cpp", reason="llamacpp is not installed: make llamacpp")

    def test_a_file_that_was_cut_off_is_refused_with_the_librarys_words(
        self, tiny: ModelSource, tmp_path: Path
    ) -> None:
        assert tiny.path is not None
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(tiny.path.read_bytes()[:-20_000])
        with pytest.raises(ConfigurationError, match=r"llama\.cpp cannot load .*cut\.gguf: .*(bounds|incomplete)"):
            LlamaCppEngine(ModelSource("cut", "gguf", cut), EngineOptions()).start()

    def test_an_architecture_that_nobody_knows_is_refused_by_its_name(self, tmp_path: Path) -> None:
        odd = ModelSource("odd", "gguf", tiny_gguf.build(tmp_path / "odd.gguf", "nobody"))
        with pytest.raises(ConfigurationError, match=r"unknown model architecture: 'nobody'.*use transformers"):
            LlamaCppEngine(odd, EngineOptions()).start()

    def test_what_a_build_lacks_of_the_processor_is_named(self) -> None:
        from workers.llamacpp_model import missing_instructions

        assert missing_instructions(frozenset()) == []
        assert missing_instructions(frozenset({"sve"})) == ["SVE"]  # no processor has it beside AVX

    @pytest.mark.model
    @pytest.mark.timeout(600)  # transformers unpacks the weights
    def test_an_answer_goes_from_engine_to_engine_in_its_middle(self) -> None:
        """Each engine continues the ids of the one before, and all three would have said the same."""
        packaged = resolve("smollm2-135m")
        tokenizer = load_tokenizer(packaged)
        question = (
            "<|im_start|>user\nCount from one to twenty in words.<|im_end|>\n<|im_start|>assistant\nOne, two, three,"
        )
        prompt = tokenizer.decoder().encode(question).ids
        said: list[int] = []
        for name in ("openvino", "llamacpp", "transformers"):
            engine = adapter_of(name)(packaged, EngineOptions(slots=2, context_tokens=256))
            engine.start()
            end = ended(submitted(engine, "r", [*prompt, *said], num_answered=len(said)))
            said += end.token_ids
            engine.stop()
        expected = " four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen"
        assert tokenizer.decoder().decode(said).startswith(expected), tokenizer.decoder().decode(said)
