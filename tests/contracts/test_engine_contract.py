"""One suite for every engine adapter: what `workers.engine` promises, on real engines.

transformers and llamacpp run random models of two layers; openvino the packaged model, loaded once. Tests that stop or
break their engine get one of their own, the others share one. Only `repeatable` engines promise that two greedy answers
are equal, so the tests that compare answers run on those.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from services.engines import ENGINES
from services.errors import ConfigurationError, EngineError, InvalidRequest, PromptTooLong, Unsupported
from services.models.catalogue import ModelSource, resolve
from tests.workers import tiny_gguf
from workers.engine import ENGINE_LOST, Engine, EngineEvent, EngineOptions, Logprob, Sampling
from workers.llamacpp_engine import LlamaCppEngine
from workers.openvino_engine import OpenVinoEngine
from workers.select_engine import adapter_of
from workers.transformers_engine import TransformersEngine

PROMPT = [1, 40, 41, 42, 43, 44, 45, 46]
LOOPING = [1, 40, 40, 40, 40, 40]  # greedy answers to it repeat themselves
CONTEXT = 128
SLOTS = 4
DEADLINE_S = 120.0


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)


class Recorder:
    """Collects the events of requests and waits for them with a deadline."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.events: dict[str, list[EngineEvent]] = {}

    def __call__(self, event: EngineEvent) -> None:
        with self._changed:
            self.events.setdefault(event.request_id, []).append(event)
            self._changed.notify_all()

    def logprobs(self, request_id: str) -> list[Logprob]:
        return [logprob for event in self.events.get(request_id, ()) for logprob in event.logprobs]

    def tokens(self, request_id: str) -> list[int]:
        return [token for event in self.events.get(request_id, ()) for token in event.token_ids]

    def ends(self, request_id: str) -> list[EngineEvent]:
        return [event for event in self.events.get(request_id, ()) if event.outcome]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_S), f"{what} did not happen: {self.events}"

    def end(self, request_id: str) -> EngineEvent:
        """The terminal event of a request; fails if there is more than one."""
        self.wait_for(lambda: self.ends(request_id), f"the end of {request_id}")
        (end,) = self.ends(request_id)
        assert self.events[request_id][-1] is end, "an event followed the terminal one"
        return end

    def wait_for_tokens(self, request_id: str, count: int) -> None:
        self.wait_for(lambda: len(self.tokens(request_id)) >= count, f"{count} tokens of {request_id}")


class BreakablePipeline:
    """The real OpenVINO pipeline, except that a step can be made to fail. Notes how many requests ran in each."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.before_step: Callable[[], None] = lambda: None
        self.num_running: list[int] = []

    def step(self) -> None:
        self.before_step()
        self._pipeline.step()
        self.num_running.append(self._pipeline.get_metrics().scheduled_requests)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


@dataclass
class Rig:
    """An engine under test and how to break it."""

    engine: Any
    heals: bool  # after a failed step it loads the model again
    before_steps: Callable[[Callable[[], None]], None]  # calls this before each of the next steps, until it heals
    recorder: Recorder = field(default_factory=Recorder)
    threads_before: set[threading.Thread] = field(default_factory=lambda: set(threading.enumerate()))

    def submit(self, request_id: str, prompt: list[int] | None = None, **options: Any) -> None:
        sampling = Sampling(**{"max_new_tokens": 8, **options})
        self.engine.submit(request_id, PROMPT if prompt is None else prompt, sampling, self.recorder)

    def break_step(self, error: Exception, beside: str = "") -> None:
        """Make the next step fail, or the next one that `beside` runs in."""

        def fail() -> None:
            if not beside or any(key.startswith(beside) for key in self.engine._runs):
                raise error

        self.before_steps(fail)

    def answer(self, request_id: str, prompt: list[int] | None = None, **options: Any) -> list[int]:
        """Tokens of one request, run to its end."""
        self.submit(request_id, prompt, **options)
        end = self.recorder.end(request_id)
        assert end.outcome == "finished", end
        return self.recorder.tokens(request_id)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama checkpoint; weights large enough that its greedy output varies."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def packaged() -> ModelSource:
    try:
        return resolve("smollm2-135m")
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def openvino_pipeline(packaged: ModelSource) -> Any:
    pytest.importorskip("openvino_genai")
    return OpenVinoEngine(packaged, EngineOptions(slots=SLOTS))._load_pipeline()


@pytest.fixture(scope="session")
def repeatable_pipeline(packaged: ModelSource) -> Any:
    pytest.importorskip("openvino_genai")
    return OpenVinoEngine(packaged, EngineOptions(slots=SLOTS, repeatable=True))._load_pipeline()


@pytest.fixture(scope="session")
def tiny_phi(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    pytest.importorskip("llama_cpp", reason=f"llamacpp is not installed: {ENGINES['llamacpp'].install}")
    return ModelSource("tiny", "gguf", tiny_gguf.build(tmp_path_factory.mktemp("tiny-phi") / "tiny.gguf"))


def transformers_rig(given: Callable[[str], Any], cache_gib: float = 0.01, **options: Any) -> Rig:
    source = ModelSource("tiny", "folder", given("tiny_llama"))
    engine = TransformersEngine(source, EngineOptions(slots=SLOTS, cache_gib=cache_gib, **options))

    def before_steps(call: Callable[[], None]) -> None:
        step = engine._manager._generation_step
        engine._manager._generation_step = lambda: (call(), step())[1]

    return Rig(engine, heals=False, before_steps=before_steps)


def openvino_rig(
    given: Callable[[str], Any], repeatable: bool = False, pipeline: Any = None, cache_gib: float = 1.0
) -> Rig:
    """`pipeline`: the library's, instead of the one that the tests share."""
    source = given("packaged")
    made: list[BreakablePipeline] = []
    options = EngineOptions(slots=SLOTS, context_tokens=CONTEXT, repeatable=repeatable, cache_gib=cache_gib)
    if pipeline is None and cache_gib != EngineOptions.cache_gib:
        pipeline = OpenVinoEngine(source, options)._load_pipeline()
    pipeline = pipeline or given("repeatable_pipeline" if repeatable else "openvino_pipeline")

    def make_pipeline() -> BreakablePipeline:
        made.append(BreakablePipeline(pipeline))
        return made[-1]

    engine = OpenVinoEngine(source, options, make_pipeline=make_pipeline)

    def before_steps(call: Callable[[], None]) -> None:
        made[-1].before_step = call

    return Rig(engine, heals=True, before_steps=before_steps)


def llamacpp_rig(given: Callable[[str], Any], **options: Any) -> Rig:
    engine = LlamaCppEngine(given("tiny_phi"), EngineOptions(slots=SLOTS, **options))

    def before_steps(call: Callable[[], None]) -> None:
        decode = engine._model.decode
        engine._model.decode = lambda rows: (call(), decode(rows))[1]

    return Rig(engine, heals=True, before_steps=before_steps)


RIGS: dict[str, Callable[..., Rig]] = {
    "transformers": transformers_rig,
    "openvino": openvino_rig,
    "llamacpp": llamacpp_rig,
}
MARKS = {"openvino": pytest.mark.model}
PARAMS = [pytest.param(name, marks=MARKS.get(name, ())) for name in ENGINES]


def test_every_engine_has_a_rig() -> None:
    assert RIGS.keys() == ENGINES.keys()


def running(made: Rig) -> Iterator[Rig]:
    made.engine.start()
    yield made
    made.engine.stop()
    check_ends(made)


def check_ends(made: Rig) -> None:
    for request_id in made.recorder.events:
        assert len(made.recorder.ends(request_id)) == 1, f"{request_id} had more or less than one end"


@pytest.fixture(scope="module", params=PARAMS)
def started(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = RIGS[request.param](request.getfixturevalue)
    assert isinstance(made.engine, cast(type, adapter_of(request.param)))
    yield from running(made)


@pytest.fixture(scope="module", params=PARAMS)
def started_repeatable(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from running(RIGS[request.param](request.getfixturevalue, repeatable=True))


@pytest.fixture
def rig(started: Rig) -> Iterator[Rig]:
    started.recorder = Recorder()
    yield started
    check_ends(started)


@pytest.fixture
def repeatable(started_repeatable: Rig) -> Iterator[Rig]:
    """An engine whose greedy answers do not depend on what is computed with them."""
    started_repeatable.recorder = Recorder()
    yield started_repeatable
    check_ends(started_repeatable)


@pytest.fixture(params=PARAMS)
def own(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """An engine that the test may stop or break."""
    yield from running(RIGS[request.param](request.getfixturevalue))


def test_a_request_ends_once_after_exactly_max_new_tokens(rig: Rig) -> None:
    assert len(rig.answer("r", max_new_tokens=11)) == 11
    assert rig.recorder.end("r").reason == "length"


def test_a_single_token_can_be_asked_for(rig: Rig) -> None:
    assert len(rig.answer("r", max_new_tokens=1)) == 1


def test_tokens_arrive_one_step_at_a_time_and_each_only_once(rig: Rig) -> None:
    assert len(rig.answer("r", max_new_tokens=16)) == 16
    assert len(rig.recorder.events["r"]) >= 8, "the answer was not streamed"


def test_a_greedy_question_that_is_asked_again_gets_the_same_answer(repeatable: Rig) -> None:
    assert repeatable.answer("first", max_new_tokens=16) == repeatable.answer("again", max_new_tokens=16)


def test_an_answer_may_fill_the_context_to_the_last_token(rig: Rig) -> None:
    context = rig.engine.limits.context_tokens
    prompt = [1 + n % 300 for n in range(context - 5)]
    assert len(rig.answer("r", prompt, max_new_tokens=5)) == 5


def test_greedy_answers_in_a_batch_equal_those_one_at_a_time(repeatable: Rig) -> None:
    prompts = {f"r{n}": [1, *range(20 + n, 30 + 2 * n)] for n in range(2 * SLOTS)}
    alone = {name: repeatable.answer(f"{name}-alone", prompt, max_new_tokens=20) for name, prompt in prompts.items()}
    for name, prompt in prompts.items():
        repeatable.submit(name, prompt, max_new_tokens=20)
    for name in prompts:
        assert repeatable.recorder.end(name).outcome == "finished"
        assert repeatable.recorder.tokens(name) == alone[name]


def test_a_greedy_answer_continued_from_its_middle_is_the_same(repeatable: Rig) -> None:
    whole = repeatable.answer("whole", max_new_tokens=20)
    assert repeatable.answer("rest", PROMPT + whole[:9], max_new_tokens=11) == whole[9:]


def test_a_greedy_answer_is_the_same_while_its_neighbour_is_cancelled(repeatable: Rig) -> None:
    alone = repeatable.answer("alone", max_new_tokens=60)
    cancel_midway(repeatable)
    assert repeatable.recorder.tokens("neighbour") == alone


def answers_at_once(rig: Rig, **options: Any) -> list[list[int]]:
    """What SLOTS requests get that begin together and need 8 blocks of a cache in the end."""
    names = [f"r{n}" for n in range(SLOTS)]
    for n, name in enumerate(names):
        rig.submit(name, [1, *range(40 + n, 48 + n)], max_new_tokens=40, **options)
    assert {rig.recorder.end(name).outcome for name in names} == {"finished"}
    return [rig.recorder.tokens(name) for name in names]


@pytest.mark.slow
def test_greedy_answers_of_openvino_that_were_preempted_are_the_same(request: pytest.FixtureRequest) -> None:
    genai, packaged = pytest.importorskip("openvino_genai"), request.getfixturevalue("packaged")
    unhurried = openvino_rig(request.getfixturevalue, repeatable=True)
    for _ in running(unhurried):
        expected = answers_at_once(unhurried)
    scheduling = unhurried.engine._scheduler_config()
    scheduling.cache_size, scheduling.num_kv_blocks = 0, 6
    small = genai.ContinuousBatchingPipeline(str(packaged.path), scheduling, "CPU", unhurried.engine._properties)
    hurried = openvino_rig(request.getfixturevalue, repeatable=True, pipeline=small)
    for _ in running(hurried):
        assert answers_at_once(hurried) == expected
        num_running = hurried.engine._pipeline.num_running
    assert min(num_running[num_running.index(SLOTS) : -1]) < SLOTS, "nothing was preempted"


def test_greedy_answers_of_transformers_that_were_preempted_are_the_same(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    given = request.getfixturevalue
    unhurried = transformers_rig(given, repeatable=True)
    for _ in running(unhurried):
        expected = answers_at_once(unhurried, frequency_penalty=0.5)
    hurried = transformers_rig(given, cache_gib=6 * 32 * 512 / 2**30, repeatable=True)  # 6 blocks of 32 tokens
    for _ in running(hurried):
        with caplog.at_level(logging.INFO, "ContinuousBatchingLogger"):
            assert answers_at_once(hurried, frequency_penalty=0.5) == expected
    assert "Offloaded" in caplog.text, "nothing was preempted"


def test_more_requests_than_slots_all_finish(rig: Rig) -> None:
    names = [f"r{n}" for n in range(3 * SLOTS)]
    for name in names:
        rig.submit(name, max_new_tokens=6)
    for name in names:
        assert rig.recorder.end(name).outcome == "finished"
        assert len(rig.recorder.tokens(name)) == 6


def test_a_stop_token_ends_the_answer_and_is_not_in_it(repeatable: Rig) -> None:
    free = repeatable.answer("free", max_new_tokens=20)
    stop = free[7]
    stopped = repeatable.answer("stopped", max_new_tokens=20, stop_token_ids=(stop, 3))
    assert repeatable.recorder.end("stopped").reason == "stop"
    assert stopped == free[: free.index(stop)]


def test_without_stop_tokens_only_the_length_ends_an_answer(rig: Rig) -> None:
    assert len(rig.answer("r", max_new_tokens=100, stop_token_ids=())) == 100


def test_top_k_1_at_a_temperature_is_greedy(repeatable: Rig) -> None:
    greedy = repeatable.answer("greedy", max_new_tokens=12)
    assert repeatable.answer("sampled", max_new_tokens=12, temperature=1.5, top_k=1) == greedy


def test_temperature_is_per_request(repeatable: Rig) -> None:
    greedy = repeatable.answer("alone", max_new_tokens=24)
    for n in range(3):
        repeatable.submit(f"hot{n}", max_new_tokens=24, temperature=5.0)
    repeatable.submit("greedy", max_new_tokens=24)
    hot = [tuple(repeatable.recorder.tokens(f"hot{n}")) for n in range(3) if repeatable.recorder.end(f"hot{n}")]
    assert repeatable.recorder.end("greedy").outcome == "finished"
    assert len({*hot, tuple(greedy)}) == 4, "hot requests should differ from each other and from the greedy one"
    assert repeatable.recorder.tokens("greedy") == greedy


def test_the_same_seed_gives_the_same_tokens_where_seeds_are_supported(repeatable: Rig) -> None:
    if "seed" not in repeatable.engine.limits.supports:
        with pytest.raises(Unsupported, match="seed"):
            repeatable.submit("r", temperature=1.0, seed=5)
        return
    options = {"max_new_tokens": 16, "temperature": 1.5}
    first = repeatable.answer("first", seed=5, **options)
    assert repeatable.answer("second", seed=5, **options) == first
    assert repeatable.answer("other", seed=6, **options) != first
    assert repeatable.answer("unseeded", **options) != repeatable.answer("unseeded too", **options)


def cancel_midway(rig: Rig) -> None:
    """`neighbour` runs to its end while `victim` is cancelled, twice."""
    rig.submit("neighbour", max_new_tokens=60)
    rig.submit("victim", [2, 90, 91, 92], max_new_tokens=120)
    rig.recorder.wait_for_tokens("victim", 3)
    rig.engine.cancel("victim")
    rig.engine.cancel("victim")
    assert rig.recorder.end("victim").outcome == "cancelled"
    assert rig.recorder.end("neighbour").outcome == "finished"


def test_cancelling_midway_ends_once_and_leaves_the_neighbours_unharmed(rig: Rig) -> None:
    cancel_midway(rig)
    assert len(rig.recorder.tokens("neighbour")) == 60
    assert len(rig.recorder.ends("victim")) == 1


def test_a_waiting_request_can_be_cancelled(rig: Rig) -> None:
    for n in range(SLOTS):
        rig.submit(f"r{n}", max_new_tokens=60)
    rig.submit("waiting", max_new_tokens=60)
    rig.engine.cancel("waiting")
    assert rig.recorder.end("waiting").outcome == "cancelled"
    for n in range(SLOTS):
        assert rig.recorder.end(f"r{n}").outcome == "finished"


def test_cancelling_an_unknown_or_ended_request_does_nothing(rig: Rig) -> None:
    rig.answer("r")
    rig.engine.cancel("r")
    rig.engine.cancel("never seen")
    assert len(rig.answer("next")) == 8
    assert len(rig.recorder.ends("r")) == 1


def test_an_id_may_be_used_again_after_a_cancel_and_sees_only_its_own_tokens(rig: Rig) -> None:
    rig.submit("r", max_new_tokens=100)
    rig.recorder.wait_for_tokens("r", 2)
    rig.engine.cancel("r")
    assert rig.recorder.end("r").outcome == "cancelled"
    second = Recorder()
    rig.engine.submit("r", PROMPT, Sampling(9), second)
    assert second.end("r").outcome == "finished"
    assert len(second.tokens("r")) == 9


BAD: dict[str, tuple[type[Exception], list[int] | None, dict[str, Any]]] = {
    "empty prompt": (InvalidRequest, [], {}),
    "id beyond the vocabulary": (InvalidRequest, [1, 10**6], {}),
    "negative id": (InvalidRequest, [1, -1], {}),
    "prompt beyond the context": (PromptTooLong, [5] * 10_000, {}),
    "prompt that fills the context": (PromptTooLong, [5] * CONTEXT, {}),
    "answer beyond the context": (InvalidRequest, None, {"max_new_tokens": 10**6}),
    "no new tokens": (InvalidRequest, None, {"max_new_tokens": 0}),
    "top_k beyond the vocabulary": (InvalidRequest, None, {"top_k": 10**6, "temperature": 1.0}),
    "negative temperature": (InvalidRequest, None, {"temperature": -1.0}),
    "temperature that is no number": (InvalidRequest, None, {"temperature": float("nan")}),
    "whole number as temperature": (InvalidRequest, None, {"temperature": 1}),
    "top_p of zero": (InvalidRequest, None, {"top_p": 0.0, "temperature": 1.0}),
    "min_p above one": (InvalidRequest, None, {"min_p": 1.5, "temperature": 1.0}),
    "penalty out of its bounds": (InvalidRequest, None, {"presence_penalty": 2.5}),
    "bias of a token beyond the vocabulary": (InvalidRequest, None, {"logit_bias": ((10**6, 1.0),)}),
    "bias out of its bounds": (InvalidRequest, None, {"logit_bias": ((1, 101.0),)}),
    "likeliest tokens without log probabilities": (InvalidRequest, None, {"top_logprobs": 3}),
    "more likeliest tokens than are told": (InvalidRequest, None, {"logprobs": True, "top_logprobs": 21}),
    "stop token beyond the vocabulary": (InvalidRequest, None, {"stop_token_ids": (10**6,)}),
}


def test_bad_requests_are_refused_and_a_healthy_neighbour_finishes(rig: Rig) -> None:
    rig.submit("healthy", max_new_tokens=60)
    for name, (error, prompt, options) in BAD.items():
        with pytest.raises(error):
            rig.submit(name, prompt, **options)
        assert name not in rig.recorder.events
    with pytest.raises(InvalidRequest, match="already running"):
        rig.submit("healthy")
    assert rig.recorder.end("healthy").outcome == "finished"
    assert len(rig.recorder.tokens("healthy")) == 60
    assert rig.engine.alive()
    assert len(rig.answer("after")) == 8


def test_temperature_zero_is_served_as_greedy(repeatable: Rig) -> None:
    assert repeatable.answer("zero", temperature=0.0, top_p=0.5, top_k=3) == repeatable.answer("greedy")


def test_min_p_leaves_out_what_is_less_likely_than_this_part_of_the_likeliest_token(repeatable: Rig) -> None:
    assert repeatable.answer("drawn", temperature=1.0, min_p=1.0) == repeatable.answer("greedy")


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_a_penalty_counts_the_tokens_of_the_answer_and_leaves_the_neighbours_alone(repeatable: Rig, name: str) -> None:
    plain = repeatable.answer("plain", LOOPING, max_new_tokens=24)
    repeatable.submit("penalised", LOOPING, max_new_tokens=24, **{name: 2.0})
    repeatable.submit("neighbour", LOOPING, max_new_tokens=24)
    assert {repeatable.recorder.end(each).outcome for each in ("penalised", "neighbour")} == {"finished"}
    assert repeatable.recorder.tokens("neighbour") == plain
    assert len(set(repeatable.recorder.tokens("penalised"))) > len(set(plain))
    if "num_answered" in repeatable.engine.limits.supports:
        whole = repeatable.recorder.tokens("penalised")
        rest = repeatable.answer("rest", LOOPING + whole[:11], max_new_tokens=13, num_answered=11, **{name: 2.0})
        assert rest == whole[11:], "a worker that takes an answer over counts its beginning"


def test_a_bias_is_added_to_the_logit_of_its_token_or_refused_by_its_name(rig: Rig) -> None:
    if "logit_bias" in rig.engine.limits.supports:
        assert rig.answer("biased", logit_bias=((7, 100.0),)) == [7] * 8
    else:
        with pytest.raises(Unsupported, match=r"sampling.logit_bias=.*engine"):
            rig.submit("biased", logit_bias=((7, 100.0),))


def logprobs_of(rig: Rig, request_id: str, **options: Any) -> tuple[list[int], list[Logprob]]:
    """An answer and its log probabilities, with the likeliest tokens where the engine knows them."""
    top = 20 if "top_logprobs" in rig.engine.limits.supports else 0
    tokens = rig.answer(request_id, logprobs=True, top_logprobs=top, **options)
    return tokens, rig.recorder.logprobs(request_id)


def check_same(found: tuple[list[int], list[Logprob]], expected: tuple[list[int], list[Logprob]]) -> None:
    """But for roundings: a prompt that is computed anew may be cut otherwise."""
    assert found[0] == expected[0]
    for (logprob, likeliest), (its_logprob, its_likeliest) in zip(found[1], expected[1], strict=True):
        assert logprob == pytest.approx(its_logprob, abs=1e-4)
        assert dict(likeliest) == pytest.approx(dict(its_likeliest), abs=1e-4)


def test_every_token_has_its_log_probability_and_a_greedy_one_is_the_likeliest(repeatable: Rig) -> None:
    tokens, logprobs = logprobs_of(repeatable, "r", max_new_tokens=12)
    assert len(logprobs) == len(tokens) == 12
    for token_id, (logprob, likeliest) in zip(tokens, logprobs, strict=True):
        assert logprob <= 0
        if "top_logprobs" in repeatable.engine.limits.supports:
            assert [each for _, each in likeliest] == sorted((each for _, each in likeliest), reverse=True)
            assert (len(likeliest), likeliest[0]) == (20, (token_id, logprob))
            assert 0 < sum(math.exp(each) for _, each in likeliest) <= 1 + 1e-6


def test_log_probabilities_are_those_of_the_model_whatever_the_options_of_drawing_are(repeatable: Rig) -> None:
    plain = logprobs_of(repeatable, "plain", max_new_tokens=1)
    options: dict[str, Any] = {"temperature": 2.0, "top_k": 1}
    if "logit_bias" in repeatable.engine.limits.supports:
        options["logit_bias"] = ((plain[0][0], 50.0),)
    check_same(logprobs_of(repeatable, "drawn", max_new_tokens=1, **options), plain)


def test_log_probabilities_are_the_same_with_neighbours_and_nobody_else_gets_any(repeatable: Rig) -> None:
    alone = logprobs_of(repeatable, "alone", max_new_tokens=12)
    for n in range(SLOTS):
        repeatable.submit(f"neighbour{n}", [2, 90 + n, 91], max_new_tokens=20)
    check_same(logprobs_of(repeatable, "beside", max_new_tokens=12), alone)
    assert {repeatable.recorder.end(f"neighbour{n}").outcome for n in range(SLOTS)} == {"finished"}
    assert not any(repeatable.recorder.logprobs(f"neighbour{n}") for n in range(SLOTS))


def test_a_stop_token_has_no_log_probability(repeatable: Rig) -> None:
    free = repeatable.answer("free", max_new_tokens=8)
    stopped, logprobs = logprobs_of(repeatable, "stopped", max_new_tokens=8, stop_token_ids=(free[-1], 3))
    assert len(logprobs) == len(stopped) == free.index(free[-1])


def test_log_probabilities_of_transformers_are_those_of_a_forward_pass_also_after_a_preemption(
    request: pytest.FixtureRequest, tiny_llama: Path
) -> None:
    torch = pytest.importorskip("torch")
    from transformers import LlamaForCausalLM

    hurried = transformers_rig(request.getfixturevalue, cache_gib=6 * 32 * 512 / 2**30, repeatable=True)
    for _ in running(hurried):
        answers = answers_at_once(hurried, logprobs=True, top_logprobs=3)
        model = LlamaForCausalLM.from_pretrained(tiny_llama).float().eval()
        for n, answer in enumerate(answers):
            prompt = [1, *range(40 + n, 48 + n)]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits.double(), -1)
            got = hurried.recorder.logprobs(f"r{n}")
            assert len(got) == len(answer)
            for row, token_id, (logprob, likeliest) in zip(expected, answer, got, strict=True):
                assert logprob == pytest.approx(float(row[token_id]), abs=1e-4)
                values, ids = row.topk(3)
                assert [each for each, _ in likeliest] == ids.tolist()
                assert [each for _, each in likeliest] == pytest.approx(values.tolist(), abs=1e-4)


def test_stopping_cancels_what_runs_and_leaves_no_thread(own: Rig) -> None:
    for n in range(SLOTS + 2):
        own.submit(f"r{n}", max_new_tokens=110)
    own.recorder.wait_for_tokens("r0", 1)
    own.engine.stop()
    own.engine.stop()
    for n in range(SLOTS + 2):
        assert own.recorder.end(f"r{n}").outcome in ("cancelled", "finished")
    assert own.recorder.end("r5").outcome == "cancelled"
    assert not own.engine.alive()
    # Outside our reach: the pool with which transformers loaded the weights, idle, and the monitor of its progress bar.
    left = {thread.name.split("-")[0] for thread in set(threading.enumerate()) - own.threads_before}
    assert left <= {"ThreadPoolExecutor", "tqdm_monitor"}
    with pytest.raises(EngineError, match="not running"):
        own.submit("late")


def test_a_stopped_engine_can_be_started_again(own: Rig) -> None:
    own.engine.stop()
    own.engine.start()
    assert len(own.answer("r")) == 8


NO_MEMORY = RuntimeError("CUDA out of memory. Tried 2 GiB")


def check_broken(rig: Rig) -> None:
    """After a failed step the engine is dead or heals."""
    if rig.heals:
        assert len(rig.answer("after")) == 8
    else:  # the library's loop never comes back
        eventually(lambda: not rig.engine.alive(), "the engine's death")
        with pytest.raises(EngineError):
            rig.submit("after")


def test_a_failed_step_fails_every_request_once_and_the_engine_is_dead_or_heals(own: Rig) -> None:
    for n in range(SLOTS + 2):
        own.submit(f"r{n}", max_new_tokens=110)
    own.recorder.wait_for_tokens("r0", 1)
    own.break_step(RuntimeError("boom"))
    for n in range(SLOTS + 2):
        end = own.recorder.end(f"r{n}")
        assert (end.outcome, end.reason) == ("failed", ENGINE_LOST)
        assert "boom" in end.message
    check_broken(own)


def test_a_step_without_memory_ends_the_newcomer_and_the_others_may_be_begun_again(own: Rig) -> None:
    """All of them were told that memory had run out, and their readers lost their answers."""
    for n in range(2):
        own.submit(f"r{n}", max_new_tokens=110)
    for n in range(2):
        own.recorder.wait_for_tokens(f"r{n}", 1)
    own.break_step(NO_MEMORY, beside="newcomer")
    own.submit("newcomer", [2, 90, 91, 92])
    end = own.recorder.end("newcomer")
    assert (end.outcome, end.reason) == ("failed", "out_of_memory")
    assert str(NO_MEMORY) in end.message
    assert {own.recorder.end(f"r{n}").reason for n in range(2)} == {ENGINE_LOST}
    check_broken(own)


def test_a_request_that_memory_runs_out_on_while_it_is_alone_is_to_blame(own: Rig) -> None:
    own.submit("r", max_new_tokens=110)
    own.recorder.wait_for_tokens("r", 1)
    own.break_step(NO_MEMORY)
    end = own.recorder.end("r")
    assert (end.outcome, end.reason) == ("failed", "out_of_memory")
    check_broken(own)


BYTES_OF_A_TOKEN = {"transformers": 512, "openvino": 30 * 3 * 64 * 2 * 1.25, "llamacpp": 512}  # of keys and values


@pytest.mark.parametrize("name", PARAMS)
def test_requests_that_fill_the_cache_as_it_is_said_to_be_all_finish(request: pytest.FixtureRequest, name: str) -> None:
    """A worker gives an engine what `cache_tokens` has room for."""
    cache_gib = (SLOTS * CONTEXT + (32 if name == "transformers" else 0)) * BYTES_OF_A_TOKEN[name] / 2**30
    full = RIGS[name](request.getfixturevalue, cache_gib=cache_gib)
    for _ in running(full):
        assert full.engine.limits.cache_tokens == SLOTS * CONTEXT
        for n in range(SLOTS):
            full.submit(f"r{n}", [1, *range(40 + n, 135 + n)], max_new_tokens=32)
        assert [full.recorder.end(f"r{n}").outcome for n in range(SLOTS)] == ["finished"] * SLOTS


def test_the_cache_of_openvino_takes_no_more_memory_than_the_setting_says(openvino_pipeline: Any) -> None:
    rig_of_it = OpenVinoEngine(
        resolve("smollm2-135m"), EngineOptions(slots=SLOTS), make_pipeline=lambda: openvino_pipeline
    )
    rig_of_it.start()
    recorder = Recorder()
    rig_of_it.submit("r", PROMPT, Sampling(2), recorder)
    assert recorder.end("r").outcome == "finished"
    rig_of_it.stop()
    size = openvino_pipeline.get_metrics().kv_cache_size_in_bytes
    assert 0.75 * 2**30 < size <= 2**30


def test_progress_moves_while_tokens_are_made(rig: Rig) -> None:
    before = rig.engine.progress()
    rig.answer("r")
    assert rig.engine.progress() > before


def test_the_description_says_where_and_how_it_runs(rig: Rig) -> None:
    assert rig.engine.name in rig.engine.description
    assert "cpu" in rig.engine.description.lower() or "cuda" in rig.engine.description


def test_adapters_are_engines(rig: Rig) -> None:
    engine: Engine = rig.engine
    assert engine.limits.max_running == SLOTS
    assert replace(engine.limits, max_running=1).max_running == 1
