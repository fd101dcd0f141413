"""What is drawn from given logits."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from workers.engine import Sampling
from workers.token_sampler import TokenSampler

LOGITS = (3.0, 2.0, 1.0, 0.0, -1.0)


def drawn(
    times: int = 1, prompt: tuple[int, ...] = (4,), logits: tuple[float, ...] = LOGITS, **options: Any
) -> list[int]:
    """`times` tokens of one answer, each from the same logits."""
    sampler = TokenSampler(Sampling(times, **options), prompt, len(logits), None)
    tokens = list(prompt)
    for _ in range(times):
        tokens.append(sampler.draw(np.array(logits, dtype=np.float32), tokens))
    return tokens[len(prompt) :]


def test_without_temperature_the_likeliest_token_is_drawn_and_the_first_of_equals() -> None:
    assert drawn(3) == [0, 0, 0]
    assert drawn(1, (0,), (1.0, 2.0, 2.0)) == [1]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    counts = Counter(drawn(20_000, temperature=1.0, seed=1))
    weights = np.exp(LOGITS)
    for token_id, share in enumerate(weights / weights.sum()):
        assert abs(counts[token_id] / 20_000 - share) < 0.02


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.7}, {0, 1}),
        ({"top_p": 0.6}, {0}),
        ({"min_p": 0.1}, {0, 1, 2}),
        ({}, set(range(5))),
    ],
)
def test_what_is_unlikely_is_left_out(options: dict[str, Any], left: set[int]) -> None:
    assert set(drawn(3000, temperature=1.0, seed=1, **options)) == left


def test_the_same_seed_draws_the_same_and_goes_on_where_another_worker_stopped() -> None:
    whole = drawn(40, temperature=2.0, seed=9)
    assert drawn(40, temperature=2.0, seed=9) == whole != drawn(40, temperature=2.0, seed=10)
    assert drawn(25, (4, *whole[:15]), temperature=2.0, seed=9, num_answered=15) == whole[15:]


def test_without_a_seed_two_answers_differ() -> None:
    assert drawn(40, temperature=2.0) != drawn(40, temperature=2.0)


def test_penalties_count_the_tokens_of_the_answer_and_not_those_of_the_prompt() -> None:
    assert drawn(3, (0, 0, 0), presence_penalty=1.5) == [0, 1, 0]
    assert drawn(5, frequency_penalty=0.6) == [0, 0, 1, 0, 1]
    assert drawn(1, (4, 0), presence_penalty=1.5, num_answered=1) == [1]


def test_a_repetition_penalty_counts_the_prompt_too() -> None:
    assert drawn(1, (0,), repetition_penalty=2.0) == [1]
    assert drawn(1, (0,), logits=(-1.0, -1.5), repetition_penalty=2.0) == [1]


def test_a_bias_is_added() -> None:
    assert drawn(logit_bias=((3, 3.5), (0, -0.2))) == [3]


class OnlyTwo:
    def allowed(self, token_ids: list[int]) -> Any:
        return np.arange(5) == 2


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_a_grammar_leaves_nothing_but_what_it_allows(temperature: float) -> None:
    sampler = TokenSampler(Sampling(1, temperature=temperature), [4], 5, OnlyTwo())  # type: ignore[arg-type]
    assert {sampler.draw(np.array(LOGITS, dtype=np.float32), [4]) for _ in range(50)} == {2}
