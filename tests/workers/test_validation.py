from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidRequest, PromptTooLong, Unsupported
from services.wire.messages import SamplingDefaults, SamplingOptions
from workers.engine import ModelLimits, Sampling
from workers.validation import check_submission, validate

LIMITS = ModelLimits(100, 50, 4, frozenset({"temperature", "top_p", "top_k", "repetition_penalty", "seed"}))
ALL = SamplingOptions(20, 0.5, 0.9, 10, 1.1, 3)


def test_supported_options_arrive_unchanged() -> None:
    sampling = validate([1, 2], ALL, LIMITS, engine="fake", stop_token_ids=[7])
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (20, 0.5, 0.9, 10)
    assert (sampling.repetition_penalty, sampling.seed, sampling.stop_token_ids) == (1.1, 3, (7,))


def test_an_answer_gets_the_room_that_the_prompt_leaves() -> None:
    assert validate([1] * 45, ALL, LIMITS, engine="fake").max_new_tokens == 5


def test_a_prompt_that_fills_the_context_is_refused_with_the_numbers_and_never_cut() -> None:
    with pytest.raises(PromptTooLong, match="about 50 tokens; this model reads 50,"):
        validate([1] * 50, ALL, LIMITS, engine="fake")


def test_a_cache_that_holds_just_what_the_model_reads_is_not_too_small() -> None:
    """With one slot the message asked for a larger cache, which would not have helped."""
    limits = replace(LIMITS, cache_tokens=LIMITS.context_tokens, wanted_context=LIMITS.context_tokens)
    with pytest.raises(PromptTooLong, match="this model reads 50,"):
        validate([1] * 50, ALL, limits, engine="fake")


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no tokens"):
        validate([], ALL, LIMITS, engine="fake")


@pytest.mark.parametrize("bad", [-1, 100])
def test_ids_outside_the_vocabulary_are_named(bad: int) -> None:
    with pytest.raises(InvalidRequest, match=f"token id {bad} is outside"):
        validate([1, bad, 2], ALL, LIMITS, engine="fake")


def test_whole_numbers_become_floats() -> None:
    sampling = validate([1], replace(ALL, temperature=1, top_p=1, repetition_penalty=1), LIMITS, engine="fake")
    assert [type(v) for v in (sampling.temperature, sampling.top_p, sampling.repetition_penalty)] == [float] * 3


def test_top_k_may_not_exceed_the_vocabulary() -> None:
    assert validate([1], replace(ALL, top_k=100), LIMITS, engine="fake").top_k == 100
    with pytest.raises(InvalidRequest, match="top_k=101"):
        validate([1], replace(ALL, top_k=101), LIMITS, engine="fake")


def test_temperature_zero_is_greedy_and_what_it_overrides_needs_no_support() -> None:
    sampling = validate([1], replace(ALL, temperature=0, repetition_penalty=1.0), LIMITS, engine="fake")
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.0, 1.0, 0, None)
    bare = replace(LIMITS, supports=frozenset())
    assert validate([1], replace(ALL, temperature=0, repetition_penalty=1.0), bare, engine="fake") == sampling


def test_a_prompt_for_which_the_cache_is_too_small_is_refused_with_its_size_and_the_setting() -> None:
    limits = replace(LIMITS, cache_tokens=LIMITS.context_tokens, wanted_context=LIMITS.context_tokens + 1)
    with pytest.raises(PromptTooLong, match=r"about 50 tokens; the cache .* holds 50,.*raise CHATSERVER_CACHE_GIB"):
        validate([1] * 50, ALL, limits, engine="fake")


@pytest.mark.parametrize("name", ["top_p", "top_k", "repetition_penalty", "seed"])
def test_an_option_that_the_engine_lacks_is_named_with_the_engine(name: str) -> None:
    limits = replace(LIMITS, supports=LIMITS.supports - {name})
    with pytest.raises(Unsupported, match=f"{name}=.*engine fake"):
        validate([1], ALL, limits, engine="fake")
    neutral = {"top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "seed": None}[name]
    validate([1], replace(ALL, **{name: neutral}), limits, engine="fake")


def test_what_a_request_adds_to_logits_arrives_and_an_ignored_end_is_none() -> None:
    options = replace(
        ALL, min_p=0.2, presence_penalty=1, frequency_penalty=-1.5, logit_bias={7: -100.0}, ignore_eos=True
    )
    limits = replace(LIMITS, supports=frozenset(Sampling.__dataclass_fields__))
    sampling = validate([1], options, limits, engine="fake", stop_token_ids=[7])
    assert (sampling.min_p, sampling.presence_penalty, sampling.frequency_penalty) == (0.2, 1.0, -1.5)
    assert (sampling.logit_bias, sampling.stop_token_ids) == (((7, -100.0),), ())
    with pytest.raises(InvalidRequest, match=r"logit_bias token id=100 is not a whole number from 0 to 99"):
        validate([1], replace(options, logit_bias={100: 1.0}), limits, engine="fake")


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_p", 0.1), ("presence_penalty", 1.0), ("frequency_penalty", 1.0), ("logit_bias", {7: 1.0})],
)
def test_a_newer_option_that_the_engine_lacks_is_named_too(name: str, value: object) -> None:
    with pytest.raises(Unsupported, match=f"{name}=.*engine fake"):
        validate([1], replace(ALL, **{name: value}), LIMITS, engine="fake")


@given(
    prompt=st.lists(st.integers(-5, 105), max_size=60),
    options=st.builds(
        SamplingOptions,
        max_new_tokens=st.integers(1, 200),
        temperature=st.floats(0, 5) | st.integers(0, 5),
        top_p=st.floats(0.001, 1),
        top_k=st.integers(0, 200),
        repetition_penalty=st.floats(0.1, 10),
        seed=st.none() | st.integers(0, 2**31 - 1),
    ),
)
def test_whatever_passes_fits_the_engine(prompt: list[int], options: SamplingOptions) -> None:
    try:
        sampling = validate(prompt, options, LIMITS, engine="fake")
    except InvalidRequest:
        return
    check_submission(prompt, sampling, LIMITS, engine="fake")
    assert 1 <= sampling.max_new_tokens <= LIMITS.context_tokens - len(prompt)
    assert all(0 <= token_id < LIMITS.vocab_size for token_id in prompt)


def test_what_a_request_leaves_open_is_as_the_model_asks() -> None:
    defaults = SamplingDefaults(0.2, 0.9, 10, 1.1)
    sampling = validate([1], SamplingOptions(20), LIMITS, engine="fake", defaults=defaults)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.repetition_penalty) == (0.2, 0.9, 10, 1.1)
    asked = validate([1], SamplingOptions(20, temperature=0.7, top_k=0), LIMITS, engine="fake", defaults=defaults)
    assert (asked.temperature, asked.top_k, asked.top_p) == (0.7, 0, 0.9)
