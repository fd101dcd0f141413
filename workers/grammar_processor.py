"""Masks the logits of requests whose answer obeys a grammar, in `transformers` continuous batching, by llguidance.

Imports torch and llguidance: only the adapter imports it. The host follows each answer, so it must know every token
before the next step: with CUDA graphs and double-buffered steps it does not, and the adapter offers no grammars then.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from services.errors import InvalidRequest
from services.tokens.tokenization import ChatTokenizer

logger = logging.getLogger(__name__)


class AnswerGrammar:
    """The grammar of one answer, and how many tokens of the answer it has read."""

    def __init__(self, matcher: LLMatcher, num_prompt: int, vocab_size: int) -> None:
        self._matcher = matcher
        self._num_prompt = num_prompt
        self._vocab_size = vocab_size
        self._num_read = 0

    def allowed(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Which tokens may follow a prompt with the answer so far."""
        new = list(token_ids[self._num_prompt + self._num_read :])
        self._num_read += len(new)
        if new and not self._matcher.consume_tokens(new):
            logger.warning("a grammar cannot go on: %s", self._matcher.get_error().partition("\n")[0])
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        allowed = torch.zeros(self._vocab_size, dtype=torch.bool)
        known = min(self._vocab_size, len(bits))
        allowed[:known] = torch.from_numpy(bits[:known].astype(bool))
        return allowed


class GrammarCompiler:
    """Makes the grammars of a model's answers, in milliseconds: llguidance works grammars out as it goes."""

    def __init__(self, tokenizer: ChatTokenizer, vocab_size: int) -> None:
        self._tokens = LLTokenizer(tokenizer.decoder().to_str(), eos_token=list(tokenizer.stop_token_ids))
        self._vocab_size = vocab_size

    def compile(self, lark: str, num_prompt: int) -> AnswerGrammar:
        """Raises InvalidRequest for a grammar beyond the library's limits."""
        matcher = LLMatcher(self._tokens, LLMatcher.grammar_from_lark(lark), log_level=0)
        if matcher.is_error():
            raise InvalidRequest(f"response_format: {matcher.get_error().partition(chr(10))[0]}; ask for less")
        return AnswerGrammar(matcher, num_prompt, self._vocab_size)


class Grammars(ContinuousBatchingLogitsProcessor):
    """Leaves out the tokens that a request's grammar forbids. Comes before all that draws."""

    supported_kwargs = {"grammar": AnswerGrammar}  # noqa: RUF012 - the library's attribute
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._allowed: list[torch.Tensor] = []  # of this step

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """For each request the number of its mask; 0: it has none."""
        self._allowed = []
        return torch.tensor([self._code(each.state) for each in requests_with_new_token], dtype=torch.int32)

    def __call__(self, scores: Any, tensor_arg: torch.Tensor) -> Any:
        if not self._allowed:
            return scores
        kept = scores.clone()
        for row, code in enumerate(tensor_arg[: scores.size(0)].tolist()):
            if code:
                kept[row].masked_fill_(~self._allowed[code - 1], float("-inf"))
        return kept

    def _code(self, state: Any) -> int:
        grammar: AnswerGrammar | None = state.logit_processor_kwargs.get("grammar")
        if grammar is None:
            return 0
        self._allowed.append(grammar.allowed(state.initial_tokens + state.generated_tokens))
        return len(self._allowed)
