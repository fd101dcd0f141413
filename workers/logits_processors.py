"""What happens to the logits of each request in `transformers` continuous batching.

Imports torch: only the adapter imports it.

The library's own top-k and top-p draw a greedy request among tied tokens (bf16 logits tie often) and sort the whole
vocabulary at every step even if no request asked for it, which costs a fifth of the CPU's throughput at 16 requests.
It has no min-p, bias or penalties for a single request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
    ContinuousBatchingTopKLogitsWarper,
    ContinuousBatchingTopPLogitsWarper,
)

from workers.engine import Sampling


@dataclass(frozen=True)
class Adjustment:
    """What one request adds to its logits. `num_prompt`: how many of its tokens come before its answer."""

    presence_penalty: float
    frequency_penalty: float
    logit_bias: tuple[tuple[int, float], ...]
    num_prompt: int

    @classmethod
    def of(cls, sampling: Sampling, prompt_tokens: int) -> Self | None:
        """None for a request that adds nothing."""
        if not (sampling.presence_penalty or sampling.frequency_penalty or sampling.logit_bias):
            return None
        num_prompt = prompt_tokens - sampling.num_answered
        return cls(sampling.presence_penalty, sampling.frequency_penalty, sampling.logit_bias, num_prompt)


@dataclass
class _Row:
    """Where the tables hold a request, and how many tokens of its answer they have counted."""

    index: int
    counted: int


class Adjustments(ContinuousBatchingLogitsProcessor):
    """Adds biases and penalties, before the temperature. Each request that has some has a row of three tables.

    A step counts the token that it reads, on the device: the host need not know yet what the last step drew. A request
    that the tables do not have, or whose tokens are read again after a preemption, gets its row anew from the tokens
    that the host knows. The last row adds nothing.
    """

    supported_kwargs = {"adjustment": Adjustment}  # noqa: RUF012 - the library's attribute
    ignored_kwargs = ()

    def __init__(self, slots: int, vocab_size: int, device: torch.device) -> None:
        self._slots = slots
        self._rows: dict[str, _Row] = {}
        self._bias = torch.zeros(slots + 1, vocab_size, device=device)
        self._counts = torch.zeros(slots + 1, vocab_size, device=device)
        self._penalties = torch.zeros(slots + 1, 2, device=device)  # presence, frequency

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.fill_(2 * self._slots)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """For each request, twice its row, and 1 more if this step reads a token that is not counted yet."""
        states = [request.state for request in requests_with_new_token]
        codes = [2 * self._slots] * max(self._slots, len(states))  # also for places that no request takes
        adjusted = {place: state for place, state in enumerate(states) if "adjustment" in state.logit_processor_kwargs}
        present = {state.request_id for state in adjusted.values()}
        for place, state in adjusted.items():
            codes[place] = self._code(state, present)
        return torch.tensor(codes, dtype=torch.int32)

    def __call__(self, scores: Any, tensor_arg: torch.Tensor, read_ids: torch.Tensor) -> Any:  # type: ignore[override]
        """`read_ids`: the token that each row of scores has read last."""
        codes = tensor_arg[: scores.size(0)].long()
        rows, fresh = codes // 2, codes % 2
        if not _on_cpu(scores):
            return self._adjusted(scores, rows, fresh, read_ids)
        used = (rows != self._slots).nonzero().squeeze(-1)
        if not len(used):
            return scores
        return scores.index_copy(0, used, self._adjusted(scores[used], rows[used], fresh[used], read_ids[used]))

    def _adjusted(self, scores: Any, rows: torch.Tensor, fresh: torch.Tensor, read_ids: torch.Tensor) -> Any:
        places = rows * self._counts.size(1) + read_ids.long()
        self._counts.view(-1).scatter_add_(0, places, fresh.to(self._counts.dtype))
        counts = self._counts[rows]
        presence, frequency = self._penalties[rows].unsqueeze(-1).unbind(1)
        return scores + self._bias[rows] - presence * (counts > 0) - frequency * counts

    def _code(self, state: Any, present: set[str]) -> int:
        adjustment: Adjustment = state.logit_processor_kwargs["adjustment"]
        read = int(state.position_offset) - adjustment.num_prompt  # tokens of the answer, with this step
        row = self._rows.get(state.request_id)
        if row is None or read - row.counted not in (0, 1):
            row = self._begin(state, adjustment, read, present)
        fresh = read - row.counted
        row.counted = read
        return 2 * row.index + fresh

    def _begin(self, state: Any, adjustment: Adjustment, read: int, present: set[str]) -> _Row:
        known = (state.initial_tokens + state.generated_tokens)[adjustment.num_prompt :][:read]
        row = self._rows.setdefault(state.request_id, _Row(self._free_index(state.request_id, present), 0))
        row.counted = len(known)
        counts = torch.bincount(torch.tensor(known, dtype=torch.int64), minlength=self._counts.size(1))
        bias = torch.zeros(self._bias.size(1))
        for token_id, value in adjustment.logit_bias:
            bias[token_id] = value
        _wait_for_device(self._counts)  # a step may still be reading the row
        self._counts[row.index] = counts.to(self._counts)
        self._bias[row.index] = bias.to(self._bias)
        self._penalties[row.index] = torch.tensor([adjustment.presence_penalty, adjustment.frequency_penalty])
        _wait_for_device(self._counts)
        return row

    def _free_index(self, request_id: str, present: set[str]) -> int:
        """The index of a request's row: its own, a free one, or that of a request that is not in this step."""
        if request_id in self._rows:
            return self._rows[request_id].index
        if len(self._rows) == self._slots:
            self._rows = {name: row for name, row in self._rows.items() if name in present}
        taken = {row.index for row in self._rows.values()}
        return next(index for index in range(self._slots) if index not in taken)


class OwnLogits:
    """The model's own logits from which the tokens of one request are drawn, until they are taken.

    The loop's thread keeps them, the reader's takes them. A token that is drawn again after a preemption has its last.
    """

    def __init__(self, num_prompt: int) -> None:
        self._num_prompt = num_prompt
        self._rows: dict[int, Any] = {}

    def keep(self, num_read: int, row: torch.Tensor) -> None:
        """What follows the `num_read` tokens, prompt and answer, that the model has read."""
        self._rows[num_read - self._num_prompt] = row.numpy().copy()

    def take(self, number: int) -> Any:
        """Those of one token of the answer, counted from 0: float32, one for each id."""
        return self._rows.pop(number)

    def __deepcopy__(self, memo: object) -> "OwnLogits":
        return self  # the library copies what a request brings when it preempts it


class KeepLogits(ContinuousBatchingLogitsProcessor):
    """Keeps the logits of the requests that ask for them. Comes first, and changes nothing. On a CPU alone."""

    supported_kwargs = {"own_logits": OwnLogits}  # noqa: RUF012 - the library's attribute
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._asked: list[tuple[int, int, OwnLogits]] = []  # of this step: row, tokens read, where to keep it

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        states = [request.state for request in requests_with_new_token]
        self._asked = [
            (row, int(state.position_offset), state.logit_processor_kwargs["own_logits"])
            for row, state in enumerate(states)
            if "own_logits" in state.logit_processor_kwargs
        ]
        return torch.zeros(len(states), dtype=torch.int32)

    def __call__(self, scores: Any, tensor_arg: torch.Tensor) -> Any:
        for row, num_read, own in self._asked:
            own.keep(num_read, scores[row])
        return scores


class MinP(ContinuousBatchingLogitsProcessor):
    """Leaves out the tokens that are less likely than this part of the likeliest one."""

    supported_kwargs = {"min_p": float}  # noqa: RUF012 - the library's attribute
    ignored_kwargs = ()

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        asked = [request.state.logit_processor_kwargs.get("min_p", 0.0) for request in requests_with_new_token]
        return torch.tensor(asked, dtype=torch.float32).view(torch.int32)

    def __call__(self, scores: Any, tensor_arg: torch.Tensor) -> Any:
        min_p = tensor_arg[: scores.size(0)].view(dtype=torch.float32)
        if _on_cpu(scores) and not bool(min_p.any()):
            return scores
        least = scores.max(-1, keepdim=True).values + min_p.log().unsqueeze(-1)
        return scores.masked_fill(scores < least, float("-inf"))


class RequestProcessors(ContinuousBatchingLogitsProcessorList):
    """Processors that each have one argument per request. Adjustments also get the token that was read last."""

    def __init__(self, processors: Sequence[ContinuousBatchingLogitsProcessor]) -> None:
        super().__init__(LogitsProcessorList(processors))
        self.tensors_required = len(processors)

    def __call__(self, input_ids: Any, scores: Any, logits_processor_args: torch.Tensor) -> Any:
        for processor, argument in zip(self.logits_processor, logits_processor_args, strict=True):
            read = (input_ids,) if isinstance(processor, Adjustments) else ()
            scores = processor(scores, argument, *read)
        return scores


class TopK(ContinuousBatchingTopKLogitsWarper):
    """A row with top_k 1 keeps its first maximum only."""

    def __call__(self, scores: Any, tensor_arg: torch.Tensor) -> Any:
        top_k = tensor_arg[: scores.size(0)]
        greedy = (top_k == 1).unsqueeze(-1)
        first = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.argmax(-1, keepdim=True), True)
        kept = scores.masked_fill(greedy & ~first, self.filter_value)
        if _on_cpu(scores) and bool((greedy.squeeze(-1) | (top_k >= scores.size(-1))).all()):
            return kept
        return super().__call__(kept, tensor_arg)


class TopP(ContinuousBatchingTopPLogitsWarper):
    """Does nothing while every row has top_p 1."""

    def __call__(self, scores: Any, tensor_arg: torch.Tensor) -> Any:
        top_p = tensor_arg[: scores.size(0)].view(dtype=torch.float32)
        if _on_cpu(scores) and bool((top_p >= 1).all()):
            return scores
        return super().__call__(scores, tensor_arg)


def _on_cpu(scores: torch.Tensor) -> bool:
    """Looking at values is free on the CPU; on a GPU it would stall the stream and break CUDA graphs."""
    return scores.device.type == "cpu"


def _wait_for_device(tensor: torch.Tensor) -> None:
    """The library computes on a stream of its own, which our writes do not wait for."""
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)
