"""From the body of a response to what is kept of it and to our request."""

import time
from collections.abc import Callable

from services.openai.bodies import MAX_TOKENS
from services.openai.orders import with_logprobs
from services.openai.response_bodies import ResponseBody, messages_of
from services.responses.record import ResponseRecord
from services.responses.responses import Responses
from services.wire.messages import ChatRequest, Message, Priority, SamplingDefaults
from services.wire.parsing import parse_request
from services.wire.tools import parse_strict_tools, parse_tools


def turns_of(record: ResponseRecord, responses: Responses, user: str, max_chars: int) -> list[Message]:
    """What the model reads: instructions, the conversation before, the input. Raises InvalidRequest."""
    instructions = [Message("system", record.instructions)] if record.instructions else []
    before = responses.conversation(record.previous, user, max_chars) if record.previous else []
    return [*instructions, *before, *record.messages]


def record_of(body: ResponseBody, defaults: Callable[[str], SamplingDefaults]) -> ResponseRecord:
    usual = defaults(body.model) if body.temperature is None or body.top_p is None else SamplingDefaults()
    tools = parse_tools(body.tools_of_request)
    return ResponseRecord(
        created_s=int(time.time()),
        model=body.model,
        messages=tuple(messages_of(body)),
        temperature=usual.temperature if body.temperature is None else body.temperature,
        top_p=usual.top_p if body.top_p is None else body.top_p,
        instructions=body.instructions,
        previous=body.previous_response_id or "",
        background=bool(body.background),
        store=body.is_stored,
        max_output_tokens=body.max_output_tokens,
        truncation=body.truncation or "disabled",
        effort=body.effort,
        metadata=body.metadata or {},
        text_format=body.text.format.shown() if body.text and body.text.format else None,
        tools=tools,
        strict_tools=parse_strict_tools(body.tools_of_request, tools),
        tool_choice=body.tool_choice_of_request,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        top_logprobs=body.num_logprobs or 0,
    )


def response_order(
    body: ResponseBody,
    messages: list[Message],
    rid: str,
    user: str,
    max_chars: int,
    priority: Priority = "interactive",
) -> ChatRequest:
    """The request of a response. Raises InvalidRequest."""
    sampling = {
        "max_new_tokens": body.max_output_tokens or MAX_TOKENS,  # of which the worker takes what fits
        "temperature": body.temperature,
        "top_p": max(body.top_p, 0.001) if body.top_p is not None else None,
        "response_format": body.form,
    }
    raw = {
        "id": rid,
        "model": body.model,
        "messages": [message.encoded() for message in messages],
        "sampling": {name: value for name, value in sampling.items() if value is not None},
        "priority": priority,
        "truncation": body.truncation or "disabled",
        "thinking": False if body.effort == "none" else None,
        **body.tool_options,
    }
    order = parse_request(raw, user=user, max_chars=max_chars)
    return with_logprobs([order], body.num_logprobs, body.max_output_tokens, "max_output_tokens")[0]
