"""Draws the next token of an answer from its logits, on the host. For engines that hand logits out.

The order is that of the `transformers` adapter: penalties and biases, grammar, temperature, min_p, top_k, top_p.
"""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from workers.answer_grammar import AnswerGrammar
from workers.engine import Sampling

SUPPORTS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"}
    | {"seed", "logit_bias", "num_answered", "logprobs", "top_logprobs"}
)


class TokenSampler:
    """The sampling of one answer. `prompt` ends with the `num_answered` tokens that the answer has already.

    The random number of a token depends on the seed and on its place in the answer alone, so a worker that takes an
    answer over draws what the first one would have drawn.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int], vocab_size: int, grammar: AnswerGrammar | None):
        self._sampling = sampling
        self._grammar = grammar
        self._begin = len(prompt) - sampling.num_answered
        self._seed = random.getrandbits(63) if sampling.seed is None else sampling.seed
        self._bias_ids = np.array([token_id for token_id, _ in sampling.logit_bias], dtype=np.int64)
        self._biases = np.array([bias for _, bias in sampling.logit_bias], dtype=np.float32)
        self._counts = np.zeros(vocab_size, dtype=np.int32)  # of the tokens of the answer
        self._seen = np.zeros(vocab_size, dtype=bool)  # prompt and answer
        self._seen[list(prompt)] = True
        np.add.at(self._counts, list(prompt[self._begin :]), 1)

    def draw(self, logits: Any, token_ids: Sequence[int]) -> int:
        """The id that follows `token_ids`, prompt and answer so far. `logits`: float32, for each id, overwritten."""
        self._adjust(logits)
        if self._grammar is not None:
            logits[~self._grammar.allowed(token_ids)] = -np.inf
        sampling = self._sampling
        greedy = sampling.temperature == 0 or sampling.top_k == 1
        token_id = int(logits.argmax()) if greedy else self._chosen(logits, len(token_ids) - self._begin)
        self._counts[token_id] += 1
        self._seen[token_id] = True
        return token_id

    def _adjust(self, logits: Any) -> None:
        sampling = self._sampling
        if sampling.repetition_penalty != 1:
            seen = logits[self._seen]
            penalty = np.float32(sampling.repetition_penalty)
            logits[self._seen] = np.where(seen > 0, seen / penalty, seen * penalty)
        if len(self._bias_ids):
            np.add.at(logits, self._bias_ids, self._biases)
        if sampling.presence_penalty or sampling.frequency_penalty:
            logits -= np.float32(sampling.presence_penalty) * (self._counts > 0)
            logits -= np.float32(sampling.frequency_penalty) * self._counts

    def _chosen(self, logits: Any, place: int) -> int:
        weights = np.exp((logits - logits.max()) / np.float32(self._sampling.temperature))
        candidates = np.flatnonzero(weights >= _least(weights, self._sampling))
        sums = weights[candidates].cumsum(dtype=np.float64)
        at = np.random.default_rng((self._seed, place)).random() * sums[-1]
        return int(candidates[min(sums.searchsorted(at, side="right"), len(candidates) - 1)])


def _least(weights: Any, sampling: Sampling) -> Any:
    """The weight that a token must have. The likeliest one weighs 1, and one that is forbidden 0."""
    least = max(sampling.min_p, np.finfo(np.float32).tiny)
    if sampling.top_k:
        least = max(least, np.partition(weights, -sampling.top_k)[-sampling.top_k])
    if sampling.top_p < 1:
        kept = np.sort(weights[weights >= least])[::-1]
        sums = kept.cumsum(dtype=np.float64)
        least = kept[min(sums.searchsorted(sampling.top_p * sums[-1]), len(kept) - 1)]
    return least
