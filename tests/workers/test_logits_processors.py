import pytest

torch = pytest.importorskip("torch")

from transformers import TopKLogitsWarper, TopPLogitsWarper  # noqa: E402
from transformers.generation.continuous_batching.cb_logits_processors import (  # noqa: E402
    ContinuousBatchingTopKLogitsWarper,
    ContinuousBatchingTopPLogitsWarper,
)

from workers.logits_processors import TopK, TopP  # noqa: E402

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
