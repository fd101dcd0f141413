"""Masks the logits of requests whose answer obeys a grammar, in `transformers` continuous batching.

Imports torch: only the adapter imports it. The host follows each answer, so it must know every token before the next
step: with CUDA graphs and double-buffered steps it does not, and the adapter offers no grammars then.
"""

from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from workers.answer_grammar import AnswerGrammar


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
        self._allowed.append(torch.from_numpy(grammar.allowed(state.initial_tokens + state.generated_tokens)))
        return len(self._allowed)
