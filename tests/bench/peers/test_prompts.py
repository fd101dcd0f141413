"""No prompt comes twice, the same seed gives the same ones, and a long one is as long as it was asked to be."""

import pytest

from bench.peers.prompts import Prompts
from services.models.catalogue import resolve
from services.tokens.tokenization import load_tokenizer

NUMBER = 300


def test_no_two_prompts_begin_alike() -> None:
    """Else a prefix cache answers, and it is the cache that is measured."""
    prompts = Prompts(1)
    assert len({prompts.chat()[:10] for _ in range(NUMBER)}) == NUMBER


def test_the_same_seed_gives_the_same_prompts_and_another_does_not() -> None:
    first, again, other = ([prompts.chat() for _ in range(6)] for prompts in (Prompts(1), Prompts(1), Prompts(2)))
    assert first == again
    assert not set(first) & set(other)


def test_the_three_kinds_come_in_turn() -> None:
    prompts = Prompts(1)
    texts = [prompts.chat() for _ in range(6)]
    kinds = [next(kind for kind in ("essay", "repeat all", "notes in") if kind in text) for text in texts]
    assert len(set(kinds[:3])) == 3 and kinds[:3] == kinds[3:]


@pytest.mark.model
def test_a_long_prompt_has_its_tokens_and_few_more() -> None:
    tokenizer = load_tokenizer(resolve("smollm2-135m")).decoder()
    text = Prompts(1).long(1500, lambda text: len(tokenizer.encode(text).ids))
    assert 1500 <= len(tokenizer.encode(text).ids) < 1650
