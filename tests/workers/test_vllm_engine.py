"""The adapter over vLLM: what the contract suite cannot see. The packaged model, as a checkpoint."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
import pytest

from services.errors import ConfigurationError, EngineError, InvalidRequest
from services.grammar.notations import written
from services.models.catalogue import ModelSource
from services.tokens.tokenization import load_tokenizer
from services.wire.messages import ChatRequest, Message, SamplingDefaults, SamplingOptions
from tests.workers import packaged_checkpoint
from tests.workers.text_decoders import packaged_source
from workers.engine import ENGINE_LOST, Engine, EngineEvent, EngineOptions, Sampling
from workers.engine_process import EngineProcess
from workers.openvino_engine import OpenVinoEngine
from workers.planner import ChatPlanner
from workers.vllm_engine import VllmEngine

PROMPT = [1, 40, 41, 42, 43]
OPTIONS = EngineOptions(slots=4, context_tokens=512, cache_gib=0.25, repeatable=True)
MOOD = {"type": "object", "properties": {"mood": {"enum": ["calm", "cross"]}}, "required": ["mood"]}
FORM = {"type": "json_schema", "schema": {**MOOD, "additionalProperties": False}}
QUESTION = "<|im_start|>user\nCount from one to twenty in words.<|im_end|>\n<|im_start|>assistant\nOne, two, three,"


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


def test_vllm_reads_checkpoints_of_the_hugging_face_kind(tmp_path: Path) -> None:
    hub = ModelSource("m", "hub", hub_id="a/m")
    assert VllmEngine.can_read(hub) == (True, "what vllm loads or refuses")
    assert VllmEngine.can_read(ModelSource("m", "folder", tmp_path))[0]
    gguf, adapter = (
        ModelSource("m", "gguf", tmp_path / "m.gguf"),
        ModelSource("a", "adapter", tmp_path, base=hub),
    )
    assert VllmEngine.can_read(gguf) == (False, "a GGUF, and vllm reads checkpoints")
    assert VllmEngine.can_read(adapter)[1].startswith("an adapter on m, and vllm does not put adapters")
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    assert not VllmEngine.can_read(ModelSource("m", "folder", tmp_path))[0]


def test_an_engine_that_is_not_started_takes_nothing_and_knows_no_limits() -> None:
    engine = VllmEngine(ModelSource("m", "hub", hub_id="a/m"), EngineOptions())
    assert not engine.alive() and "not started" in engine.description
    with pytest.raises(EngineError, match="not started"):
        _ = engine.limits
    with pytest.raises(EngineError, match="start it first"):
        submitted(engine, "r", PROMPT)
    engine.stop()


def test_bfloat16_is_not_repeatable() -> None:
    with pytest.raises(ConfigurationError, match="CHATSERVER_DTYPE or CHATSERVER_REPEATABLE"):
        VllmEngine(ModelSource("m", "hub", hub_id="a/m"), EngineOptions(dtype="bf16", repeatable=True))


def test_without_vllm_the_error_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", None)
    with pytest.raises(ConfigurationError, match="make vllm installs it"):
        VllmEngine(ModelSource("m", "hub", hub_id="a/m"), EngineOptions()).start()


@pytest.mark.model
@pytest.mark.timeout(600)  # vLLM takes a minute to start
class TestWithTheLibrary:
    @pytest.fixture(autouse=True, scope="class")
    def installed(self) -> None:
        pytest.importorskip("vllm", reason="vllm is not installed: make vllm")

    @pytest.fixture(scope="class")
    def checkpoint(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
        return packaged_checkpoint.build(tmp_path_factory.mktemp("checkpoint"))

    @pytest.fixture(scope="class")
    def engine(self, checkpoint: ModelSource) -> Iterator[VllmEngine]:
        made = VllmEngine(checkpoint, OPTIONS)
        made.start()
        yield made
        made.stop()

    def test_the_limits_are_vllms_own(self, engine: VllmEngine) -> None:
        limits = engine.limits
        assert (limits.context_tokens, limits.max_running, limits.vocab_size) == (512, 4, 49152)
        assert "in blocks of 128, 4 slots, context 512" in engine.description
        assert {"grammar", "top_logprobs", "seed"} <= limits.supports

    def test_an_answer_goes_from_engine_to_engine_in_its_middle(self, engine: VllmEngine) -> None:
        """vllm continues the ids of openvino, and openvino those of vllm, and each would have said the same."""
        pytest.importorskip("openvino_genai")
        decoder = load_tokenizer(packaged_source()).decoder()
        prompt = decoder.encode(QUESTION).ids
        other = OpenVinoEngine(packaged_source(), EngineOptions(slots=2, context_tokens=256))
        other.start()
        said: list[int] = []
        for each in (other, engine, other):
            said += ended(submitted(each, "r", [*prompt, *said], num_answered=len(said))).token_ids
        other.stop()
        expected = " four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen"
        assert decoder.decode(said).startswith(expected), decoder.decode(said)

    def test_an_answer_obeys_a_grammar_from_its_beginning_and_from_its_middle(self, engine: VllmEngine) -> None:
        tokenizer = load_tokenizer(packaged_source())
        options = SamplingOptions(max_new_tokens=60, temperature=0.0, response_format=FORM)
        request = ChatRequest("r", "ann", "m", (Message("user", "What is your mood, as JSON?"),), options)
        plan = ChatPlanner(tokenizer, engine, SamplingDefaults())(request)
        assert plan.grammar is not None
        stop = tuple(tokenizer.stop_token_ids)
        whole = ended(
            submitted(
                engine,
                "whole",
                plan.prompt_ids,
                max_new_tokens=60,
                stop_token_ids=stop,
                grammar=written(plan.grammar, plan.notation),
            )
        )
        text = tokenizer.decoder().decode(list(whole.token_ids))
        assert whole.reason == "stop" and json.loads(text)["mood"] in ("calm", "cross")
        begun = '{"mood": "c'
        rest = plan.grammar.after(begun)
        assert rest is not None
        continued = ended(
            submitted(
                engine,
                "rest",
                [*plan.prompt_ids, *tokenizer.decoder().encode(begun, add_special_tokens=False).ids],
                max_new_tokens=60,
                stop_token_ids=stop,
                grammar=written(rest, plan.notation),
            )
        )
        answer = begun + tokenizer.decoder().decode(list(continued.token_ids))
        assert json.loads(answer)["mood"] in ("calm", "cross")

    def test_a_grammar_that_is_none_is_refused_and_a_neighbour_finishes(self, engine: VllmEngine) -> None:
        neighbour = submitted(engine, "neighbour", PROMPT, max_new_tokens=30)
        with pytest.raises(InvalidRequest, match="response_format"):
            submitted(engine, "bad", PROMPT, grammar="start: (", stop_token_ids=(2,))
        assert len(ended(neighbour).token_ids) == 30

    def test_a_temperature_that_vllm_would_refuse_late_is_refused_at_once(self, engine: VllmEngine) -> None:
        with pytest.raises(InvalidRequest, match=r"sampling.temperature=2\.5: engine vllm draws at 2 at most"):
            submitted(engine, "hot", PROMPT, temperature=2.5)

    def test_a_prompt_that_begins_as_another_one_did_is_computed_from_there(self, engine: VllmEngine) -> None:
        prompt = [1 + n % 300 for n in range(400)]
        first, second = (ended(submitted(engine, name, prompt)).token_ids for name in ("first", "second"))
        assert first == second and len(first) == 8

    def test_in_its_own_process_it_answers_and_its_processes_end_with_it(self, checkpoint: ModelSource) -> None:
        engine = EngineProcess(checkpoint, OPTIONS, engine="vllm")
        engine.start()
        leader = psutil.Process(engine._process.pid)
        others = leader.children(recursive=True)
        assert others, "vLLM computes in processes of its own"
        assert len(ended(submitted(engine, "r", PROMPT)).token_ids) == 8
        events = submitted(engine, "killed", PROMPT, max_new_tokens=400)
        assert events.get(timeout=120).outcome is None
        leader.kill()
        end = ended(events)
        assert (end.outcome, end.reason) == ("failed", ENGINE_LOST)
        engine.stop()
        eventually(lambda: not any(map(runs, others)))

    def test_a_core_that_dies_fails_every_request_once_and_the_engine_is_dead(self, checkpoint: ModelSource) -> None:
        engine = VllmEngine(checkpoint, OPTIONS)
        engine.start()
        running = [submitted(engine, f"r{n}", PROMPT, max_new_tokens=400) for n in range(6)]
        assert running[0].get(timeout=120).outcome is None
        for process in engine._llm.engine_core.resources.engine_manager.processes:
            process.kill()
        for events in running:
            end = ended(events)
            assert (end.outcome, end.reason) == ("failed", ENGINE_LOST)
            assert events.empty()
        assert not engine.alive()
        with pytest.raises(EngineError):
            submitted(engine, "after", PROMPT)
        engine.stop()

    def test_a_folder_that_is_no_model_is_refused_with_vllms_words(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "nobody"}')
        with pytest.raises(ConfigurationError, match=r"vllm cannot load .*nobody"):
            VllmEngine(ModelSource("m", "folder", tmp_path), EngineOptions()).start()


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
