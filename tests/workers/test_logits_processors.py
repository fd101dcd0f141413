from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper  # noqa: E402
from transformers.generation.continuous_batching.cb_logits_processors import (  # noqa: E402
    ContinuousBatchingTopKLogitsWarper,
    ContinuousBatchingTopPLogitsWarper,
)

from workers.logits_processors import Adjustment, Adjustments, MinP, TopK, TopP  # noqa: E402

VOCABULARY = 50


def scores(rows: int) -> "torch.Tensor":
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(3))


def test_a_greedy_row_keeps_one_of_its_tied_maxima() -> None:
    """The library keeps them all and draws, so a greedy answer in bf16 changed from run to run."""
    tied = torch.zeros(1, VOCABULARY)
    tied[0, [4, 9]] = 5.0
    kept = TopK(TopKLogitsWarper(50))(tied, torch.tensor([1], dtype=torch.int32))
    assert torch.isfinite(kept).nonzero().tolist() == [[0, 4]]


@pytest.mark.parametrize("top_k", [[1, 1, 1], [VOCABULARY, 1, VOCABULARY], [3, 1, VOCABULARY], [2, 7, 5]])
def test_top_k_equals_that_of_the_library_without_ties(top_k: list[int]) -> None:
    given, argument = scores(3), torch.tensor(top_k, dtype=torch.int32)
    expected = ContinuousBatchingTopKLogitsWarper(TopKLogitsWarper(50))(given.clone(), argument)
    assert torch.equal(TopK(TopKLogitsWarper(50))(given.clone(), argument), expected)


@pytest.mark.parametrize("top_p", [[1.0, 1.0], [0.5, 1.0], [0.1, 0.9]])
def test_top_p_equals_that_of_the_library(top_p: list[float]) -> None:
    given, argument = scores(2), torch.tensor(top_p).view(torch.int32)
    expected = ContinuousBatchingTopPLogitsWarper(TopPLogitsWarper(0.9))(given.clone(), argument)
    assert torch.equal(TopP(TopPLogitsWarper(0.9))(given.clone(), argument), expected)


def request(name: str, answer: list[int], read: int, frequency: float = 1.0) -> Any:
    """A request of two prompt tokens whose step reads the answer up to its `read`th token."""
    adjustment = Adjustment(0.0, frequency, ((3, 5.0),), num_prompt=2)
    state = SimpleNamespace(request_id=name, initial_tokens=[0, 0], generated_tokens=answer, position_offset=2 + read)
    state.logit_processor_kwargs = {"adjustment": adjustment}
    return SimpleNamespace(state=state)


def added(adjustments: Adjustments, *steps: Any, read_ids: list[int]) -> "list[dict[int, float]]":
    """What one step adds to each row of scores, by token."""
    argument = adjustments.prepare_tensor_args(list(steps))
    scores = adjustments(torch.zeros(len(steps), VOCABULARY), argument, torch.tensor(read_ids))
    return [{token: value for token, value in enumerate(row.tolist()) if value} for row in scores]


def test_a_step_counts_the_token_that_it_reads_though_the_host_may_not_know_it_yet() -> None:
    made = Adjustments(2, VOCABULARY, torch.device("cpu"))
    assert added(made, request("a", [], 0), read_ids=[0]) == [{3: 5.0}]
    assert added(made, request("a", [], 1), read_ids=[7]) == [{3: 5.0, 7: -1.0}]
    assert added(made, request("a", [7], 2), read_ids=[7]) == [{3: 5.0, 7: -2.0}]


def test_tokens_that_are_read_again_after_a_preemption_are_not_counted_twice() -> None:
    made = Adjustments(2, VOCABULARY, torch.device("cpu"))
    added(made, request("a", [], 0), read_ids=[0])
    added(made, request("a", [], 1), read_ids=[7])
    assert added(made, request("a", [7], 1), read_ids=[7]) == [{3: 5.0, 7: -1.0}]
    assert added(made, request("a", [7, 8, 9], 3), read_ids=[9]) == [{3: 5.0, 7: -1.0, 8: -1.0, 9: -1.0}]


def test_a_row_goes_from_a_request_that_ended_to_another_and_comes_back_with_its_tokens() -> None:
    made = Adjustments(1, VOCABULARY, torch.device("cpu"))
    added(made, request("a", [7, 7], 2), read_ids=[7])
    assert added(made, request("b", [8], 1), read_ids=[8]) == [{3: 5.0, 8: -1.0}]
    assert added(made, request("a", [7, 7], 3), read_ids=[9]) == [{3: 5.0, 7: -2.0, 9: -1.0}]


def test_a_request_that_adds_nothing_is_left_alone_beside_one_that_does() -> None:
    made = Adjustments(2, VOCABULARY, torch.device("cpu"))
    plain = SimpleNamespace(state=SimpleNamespace(logit_processor_kwargs={}))
    assert added(made, plain, request("a", [7], 1), read_ids=[5, 7]) == [{}, {3: 5.0, 7: -1.0}]


@pytest.mark.parametrize("min_p", [[0.0, 0.0], [0.3, 0.0], [0.05, 1.0]])
def test_min_p_equals_that_of_the_library(min_p: list[float]) -> None:
    given = scores(2)
    kept = MinP()(given.clone(), torch.tensor(min_p).view(torch.int32))
    for row, least in enumerate(min_p):
        theirs = MinPLogitsWarper(least)(None, given[row : row + 1].clone())
        assert torch.equal(kept[row : row + 1], theirs)
