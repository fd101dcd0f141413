"""The requests that OpenAI's bodies become."""

from services.openai.bodies import MAX_TOKENS, ChatCompletionBody
from services.openai.orders import chat_orders

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def most_tokens(**fields: object) -> list[int]:
    orders = chat_orders(ChatCompletionBody.model_validate({**ASK, **fields}), "r", "ann", 1_000)
    return [order.sampling.max_new_tokens for order in orders]


def test_an_answer_without_max_tokens_ends_where_its_log_probabilities_are_a_million() -> None:
    assert most_tokens() == most_tokens(logprobs=True) == [MAX_TOKENS]
    assert most_tokens(logprobs=True, top_logprobs=20) == [47_619]
    assert most_tokens(logprobs=True, top_logprobs=20, n=2) == [23_809] * 2
    assert most_tokens(logprobs=True, top_logprobs=20, max_tokens=5) == [5]
