"""Checks a request before its tokens reach an engine, for all adapters.

Each of these, unchecked, would end an engine's loop and all its requests: temperature 0 with sampling, top_k above the
size of the vocabulary, an id outside it, a prompt larger than the cache. `validate` turns a client's options into
`Sampling`. Adapters call `check_submission` again, because a caller may submit without `validate`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields

from services.errors import InvalidRequest, PromptTooLong, Unsupported
from services.wire.messages import MAX_TOP_LOGPROBS, SamplingDefaults, SamplingOptions
from workers.engine import ModelLimits, Sampling

# At its default an option changes nothing, so that an engine without it can still serve the request.
_ALL_ENGINES = ("max_new_tokens", "stop_token_ids", "num_answered")
_NEUTRAL = {field.name: field.default for field in fields(Sampling) if field.name not in _ALL_ENGINES}

_NO_OTHERS = SamplingDefaults()


def validate(
    prompt_ids: Sequence[int],
    options: SamplingOptions,
    limits: ModelLimits,
    *,
    engine: str,
    defaults: SamplingDefaults = _NO_OTHERS,
    stop_token_ids: Iterable[int] = (),
) -> Sampling:
    """Sampling for an answer to this prompt. Raises InvalidRequest, PromptTooLong or Unsupported.

    `max_new_tokens` becomes what fits: min(asked, context - prompt). To continue an answer of n tokens, validate the
    prompt alone and subtract n from `max_new_tokens`; if nothing is left, the answer was complete.
    """
    _check_room(len(prompt_ids), limits)
    drawn = options.over(defaults)
    greedy = drawn.temperature == 0
    sampling = Sampling(
        max_new_tokens=min(options.max_new_tokens, limits.context_tokens - len(prompt_ids)),
        temperature=float(drawn.temperature),
        top_p=1.0 if greedy else float(drawn.top_p),
        top_k=0 if greedy else drawn.top_k,
        repetition_penalty=float(drawn.repetition_penalty),
        seed=None if greedy else options.seed,
        stop_token_ids=() if options.ignore_eos else tuple(stop_token_ids),
        min_p=0.0 if greedy else float(options.min_p or 0),
        presence_penalty=float(options.presence_penalty or 0),
        frequency_penalty=float(options.frequency_penalty or 0),
        logit_bias=tuple(options.logit_bias.items()),
        logprobs=options.logprobs,
        top_logprobs=min(options.top_logprobs, limits.vocab_size),
    )
    check_submission(prompt_ids, sampling, limits, engine=engine)
    return sampling


def check_submission(prompt_ids: Sequence[int], sampling: Sampling, limits: ModelLimits, *, engine: str) -> None:
    """Raises InvalidRequest (or a subclass), which names the value, for a value that the engine must not get."""
    _check_ids(prompt_ids, limits)
    _check_room(len(prompt_ids), limits)
    _check_budget(len(prompt_ids), sampling.max_new_tokens, limits)
    _check_number("temperature", sampling.temperature, 0, 100)
    _check_number("top_p", sampling.top_p, 1e-6, 1)
    _check_number("repetition_penalty", sampling.repetition_penalty, 1e-3, 100)
    _check_number("min_p", sampling.min_p, 0, 1)
    _check_number("presence_penalty", sampling.presence_penalty, -2, 2)
    _check_number("frequency_penalty", sampling.frequency_penalty, -2, 2)
    for token_id, bias in sampling.logit_bias:
        _check_whole("logit_bias token id", token_id, 0, limits.vocab_size - 1)
        _check_number("logit_bias", bias, -100, 100)
    _check_whole("num_answered", sampling.num_answered, 0, len(prompt_ids))
    _check_whole("top_k", sampling.top_k, 0, limits.vocab_size)
    _check_whole("top_logprobs", sampling.top_logprobs, 0, MAX_TOP_LOGPROBS if sampling.logprobs else 0)
    if sampling.seed is not None:
        _check_whole("seed", sampling.seed, 0, 2**63 - 1)
    if sampling.grammar and not sampling.stop_token_ids:
        raise InvalidRequest("a grammar needs a token that ends the answer, and this model names none")
    for token_id in sampling.stop_token_ids:
        _check_whole("stop_token_ids", token_id, 0, limits.vocab_size - 1)
    _check_supported(sampling, limits, engine)


def _check_ids(prompt_ids: Sequence[int], limits: ModelLimits) -> None:
    if not prompt_ids:
        raise InvalidRequest("the prompt has no tokens; send at least one message with text")
    for token_id in (min(prompt_ids), max(prompt_ids)):
        if not 0 <= token_id < limits.vocab_size:
            raise InvalidRequest(
                f"token id {token_id} is outside the model's vocabulary of {limits.vocab_size};"
                " the tokenizer and the weights belong to different models"
            )


def _check_room(prompt_tokens: int, limits: ModelLimits) -> None:
    if prompt_tokens >= limits.context_tokens:
        by_cache = limits.context_tokens < limits.wanted_context
        reads = "the cache of this model's workers holds" if by_cache else "this model reads"
        remedy = "raise CHATSERVER_CACHE_GIB" if by_cache else "choose a model that reads more"
        raise PromptTooLong(
            f"the text is too long: about {_rounded(prompt_tokens):,} tokens; {reads}"
            f" {limits.context_tokens:,}, its answer included; shorten it, or {remedy}"
        )


def _rounded(number: int) -> int:
    """Two digits are as exact as people need."""
    return round(number, 2 - len(str(number)))


def _check_budget(prompt_tokens: int, max_new_tokens: int, limits: ModelLimits) -> None:
    room = limits.context_tokens - prompt_tokens
    _check_whole("max_new_tokens", max_new_tokens, 1, room)


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(f"sampling.{name}={value!r:.80} is not a whole number from {low} to {high}")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if not isinstance(value, float) or not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequest(f"sampling.{name}={value!r:.80} is not a number from {low:g} to {high:g}")


def _check_supported(sampling: Sampling, limits: ModelLimits, engine: str) -> None:
    for name, neutral in _NEUTRAL.items():
        value = getattr(sampling, name)
        if value != neutral and name not in limits.supports:
            raise Unsupported(f"sampling.{name}={value!r}: engine {engine} cannot set it per request; leave it out")
