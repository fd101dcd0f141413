"""Which tokens the grammar of an answer allows next, by llguidance. Adapters that see each token in time call it.

Imports neither torch nor an engine. An adapter puts the mask on its logits.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer

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

    def allowed(self, token_ids: Sequence[int]) -> Any:
        """Which tokens may follow a prompt with the answer so far: a bool for each id of the vocabulary."""
        new = list(token_ids[self._num_prompt + self._num_read :])
        self._num_read += len(new)
        if new and not self._matcher.consume_tokens(new):
            logger.warning("a grammar cannot go on: %s", self._matcher.get_error().partition("\n")[0])
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        allowed = np.zeros(self._vocab_size, dtype=bool)
        known = min(self._vocab_size, len(bits))
        allowed[:known] = bits[:known]
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
