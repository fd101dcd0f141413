"""What a user of the official client does, against the address in argv[1] and a key in argv[2]."""

import sys
from collections.abc import Callable

import openai

URL, KEY = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
QUESTION = [{"role": "user", "content": "<think>let me see</think>four, five"}]


def fails(kind: type[openai.APIStatusError], code: str, ask: Callable[[], object]) -> openai.APIStatusError:
    try:
        ask()
    except kind as error:
        assert error.code == code and error.request_id is not False, error
        return error
    raise AssertionError(f"no {kind.__name__}")


def ask(**fields: object) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(**{"model": "thinker", "messages": QUESTION, **fields})


def models() -> None:
    assert {model.id for model in client.models.list()} == {"packaged", "thinker", "qwen3", "slow", "smollm2-135m"}
    assert client.models.retrieve("thinker").owned_by == "chatserver"


def whole() -> None:
    answer = ask()
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "four, five", "stop")
    assert choice.message.reasoning_content == "let me see"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert answer._request_id and answer._request_id in answer.id


def streamed() -> None:
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert deltas[0].role == "assistant" and {delta.role for delta in deltas[1:]} == {None}
    assert "".join(delta.content or "" for delta in deltas) == "four, five"
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "let me see"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-2:] == [None, "stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    with client.chat.completions.stream(model="thinker", messages=QUESTION) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == "four, five"


def real() -> None:
    """The packaged model, whose tokens are no code points."""
    question = {"model": "packaged", "messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 12}
    answer = ask(**question, temperature=0)
    streamed = list(ask(**question, temperature=0, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed[:-1])
    assert text and answer.choices[0].message.content
    assert 0 < streamed[-1].usage.completion_tokens <= 12


def several() -> None:
    answer = ask(n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage.completion_tokens == 2 * ask().usage.completion_tokens


def cut() -> None:
    assert ask(max_completion_tokens=2).choices[0].finish_reason == "length"


def texts() -> None:
    answer = client.completions.create(model="slow", prompt="abc", echo=True)
    assert (answer.choices[0].text, answer.object) == ("abcabc", "text_completion")
    parts = client.completions.create(model="slow", prompt="abc", stream=True)
    assert "".join(part.choices[0].text for part in parts) == "abc"


def probabilities() -> None:
    asked = {"model": "smollm2-135m", "logprobs": True, "top_logprobs": 2}
    choice = ask(**asked).choices[0]
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    assert all(token.top_logprobs[0].logprob == token.logprob for token in choice.logprobs.content)
    told = [chunk.choices[0].logprobs for chunk in ask(stream=True, **asked) if chunk.choices]
    assert [token for each in told if each for token in each.content] == choice.logprobs.content
    include, said = ["message.output_text.logprobs"], ""
    for event in client.responses.create(model="smollm2-135m", input="hi", include=include, stream=True):
        if event.type == "response.output_text.delta":
            said += "".join(token.token for token in event.logprobs)
    assert said == "hi"


def errors() -> None:
    assert fails(openai.BadRequestError, "invalid_request", lambda: ask(temperature=9)).param == "temperature"
    fails(openai.BadRequestError, "unsupported", lambda: ask(logprobs=True))
    fails(openai.NotFoundError, "model_not_found", lambda: ask(model="nobody"))
    stranger = openai.OpenAI(base_url=f"{URL}/v1", api_key="wrong", max_retries=0)
    fails(openai.AuthenticationError, "invalid_api_key", stranger.models.list)


def crowds() -> None:
    """One of the questions is too many until others have ended; the client waits by itself."""
    fails(openai.RateLimitError, "rate_limit_exceeded", lambda: ask(n=5))
    patient = client.with_options(max_retries=5)
    first = ask(model="slow", stream=True, n=4)
    next(iter(first))
    again = patient.chat.completions.create(model="slow", messages=[{"role": "user", "content": "hi"}])
    assert again.choices[0].message.content == "hi"


def retries() -> None:
    """A key makes a question that is asked twice one question."""
    twice = [ask(extra_headers={"Idempotency-Key": "one"}) for _ in range(2)]
    assert twice[0].id == twice[1].id != ask().id


TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
PARIS = '{"city": "Paris"}'


def tools() -> None:
    """A call, whole and streamed, and the answer to its result."""
    tools = [{"type": "function", "function": TOOL}]
    asked = [{"role": "user", "content": CALL}]
    (choice,) = ask(model="qwen3", messages=asked, tools=tools).choices
    (call,) = choice.message.tool_calls
    assert (call.function.name, call.function.arguments, choice.finish_reason) == ("weather", PARIS, "tool_calls")
    with client.chat.completions.stream(model="qwen3", messages=asked, tools=tools) as stream:
        kinds = {event.type for event in stream}
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
    assert "tool_calls.function.arguments.done" in kinds
    assert (streamed.function.name, streamed.function.arguments) == ("weather", PARIS) and streamed.id
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
    after = ask(model="qwen3", messages=[*asked, choice.message, result], tools=tools)
    assert after.choices[0].message.content == "18 degrees"


def tools_of_responses() -> None:
    tools = [{"type": "function", "strict": False, **TOOL}]
    with client.responses.stream(model="qwen3", input=CALL, tools=tools) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        first = stream.get_final_response()
    (call,) = first.output
    assert (call.type, call.name, call.arguments, "".join(deltas)) == ("function_call", "weather", PARIS, PARIS)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
    after = client.responses.create(model="qwen3", input=[result], previous_response_id=first.id, tools=tools)
    assert after.output_text == "18 degrees"


for case in (
    models,
    whole,
    streamed,
    real,
    several,
    cut,
    texts,
    probabilities,
    errors,
    crowds,
    retries,
    tools,
    tools_of_responses,
):
    case()
    print(case.__name__, "is right")
