"""From OpenAI's bodies to our requests: one for each choice of the answer."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from services.errors import InvalidRequest, Unsupported
from services.openai.bodies import (
    MAX_CHOICES,
    CallBody,
    ChatCompletionBody,
    ChatMessage,
    CompletionBody,
    SamplingFields,
)
from services.wire.messages import ChatRequest, Priority
from services.wire.parsing import parse_request
from services.wire.tools import parse_arguments

_ROLES = {"developer": "system"}
MAX_LOGPROBS = 1_000_000  # of one body: its choices, times their tokens, times what each token has

# What each kind of body calls the options that not every engine has.
CHAT_FIELDS = {"response_format": "response_format", "logprobs": "logprobs", "top_logprobs": "top_logprobs"}
TEXT_FIELDS = {**CHAT_FIELDS, "top_logprobs": "logprobs"}
RESPONSE_FIELDS = {"response_format": "text.format", "logprobs": "include", "top_logprobs": "top_logprobs"}
_LACKS = {
    "response_format": "obey no grammar; leave it out",
    "logprobs": "tell no log probabilities; leave it out",
    "top_logprobs": "tell the log probability of the chosen token alone; ask for 0 of the likeliest ones",
}

Supports = Callable[[str], Collection[str] | None]
"""What all workers of a model can do; None while it has none."""


def chat_orders(
    body: ChatCompletionBody, rid: str, user: str, max_chars: int, priority: Priority = "interactive"
) -> list[ChatRequest]:
    """One request for each choice. Raises InvalidRequest."""
    messages = [_message(message, f"messages.{index}") for index, message in enumerate(body.messages)]
    ends_with_assistant = bool(messages) and messages[-1]["role"] == "assistant"
    continues = ends_with_assistant and body.continue_final_message is not False and not body.add_generation_prompt
    if body.continue_final_message and not ends_with_assistant:
        raise InvalidRequest(
            "continue_final_message: the last message must be the assistant's", field="continue_final_message"
        )
    asked = {"messages": messages, "continue_final": continues, "thinking": body.thinking}
    raw: dict[str, Any] = {**asked, **body.tool_options}
    field = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    max_tokens: int | None = getattr(body, field)
    orders = _choices(body, [{**raw, "priority": priority}], max_tokens, rid, user, max_chars)
    return with_logprobs(orders, body.num_logprobs, max_tokens, field)


def completion_orders(
    body: CompletionBody, rid: str, user: str, max_chars: int, priority: Priority = "interactive"
) -> list[ChatRequest]:
    """One request for each prompt and choice, in that order. Raises InvalidRequest."""
    if not all(body.prompts):
        raise InvalidRequest("prompt must not be empty", field="prompt")
    raws = [{"prompt": prompt, "priority": priority} for prompt in body.prompts]
    orders = _choices(body, raws, body.max_tokens, rid, user, max_chars)
    return with_logprobs(orders, body.num_logprobs, body.max_tokens)


def _choices(
    body: SamplingFields, raws: list[dict[str, Any]], max_tokens: int | None, rid: str, user: str, max_chars: int
) -> list[ChatRequest]:
    n, sampling = body.n or 1, body.sampling(max_tokens)
    if n * len(raws) > MAX_CHOICES:
        raise InvalidRequest(f"{len(raws)} prompts with n={n} make more than {MAX_CHOICES} choices", field="n")
    orders = []
    for index, raw in enumerate(raws):
        whole = {
            **raw,
            "id": f"{rid}-{index * n}",
            "model": body.model,
            "sampling": sampling,
            "truncation": "disabled",  # a program wants to know what does not fit
        }
        first = parse_request({k: v for k, v in whole.items() if v is not None}, user=user, max_chars=max_chars)
        orders += [_nth(first, rid, index * n + choice, choice) for choice in range(n)]
    return orders


def with_logprobs(
    orders: list[ChatRequest], num_top: int | None, max_tokens: int | None, field: str = "max_tokens"
) -> list[ChatRequest]:
    """The same requests, for answers with log probabilities and the likeliest tokens; None: without.

    `max_tokens`: what the body's `field` says. Where it says nothing, an answer ends at the limit of log probabilities;
    more than that raises InvalidRequest.
    """
    if num_top is None:
        return orders
    room = MAX_LOGPROBS // (len(orders) * (num_top + 1))
    if max_tokens is not None and max_tokens > room:
        raise InvalidRequest(
            f"{field}={max_tokens:,} is too much beside log probabilities, of which a request may ask "
            f"{MAX_LOGPROBS:,}: {len(orders):,} choices with {num_top} of the likeliest tokens each and the chosen one "
            f"have room for {room:,} tokens; ask for fewer tokens, choices or likeliest tokens",
            field=field,
        )
    return [_with_logprobs(order, num_top, room) for order in orders]


def _with_logprobs(order: ChatRequest, num_top: int, room: int) -> ChatRequest:
    sampling = order.sampling
    num_tokens = min(sampling.max_new_tokens, room)
    sampling = dataclasses.replace(sampling, logprobs=True, top_logprobs=num_top, max_new_tokens=num_tokens)
    return dataclasses.replace(order, sampling=sampling)


def check_served(order: ChatRequest, supports: Supports, fields: Mapping[str, str] = CHAT_FIELDS) -> None:
    """Refuse at the door what a worker would refuse. While a model has no worker, the first one decides.

    `fields`: what the body calls an option.
    """
    known = supports(order.model)
    if known is None:
        return
    asked = {
        "response_format": order.sampling.response_format is not None,
        "logprobs": order.sampling.logprobs,
        "top_logprobs": order.sampling.top_logprobs > 0,
    }
    for name, is_asked in asked.items():
        if is_asked and name not in known:
            field = fields[name]
            raise Unsupported(f"{field}: the workers of {order.model} {_LACKS[name]}", field=field)
    if order.has_tools and "tools" not in known:
        raise Unsupported(
            f"{order.model} cannot call tools: its chat template writes none, or its calls are not understood; "
            "leave tools and tool messages out, or choose another model",
            field="tools",
        )
    if order.strict_tools and "strict_tools" not in known:
        raise Unsupported(
            f"tools: the workers of {order.model} cannot hold arguments to a schema; leave strict out", field="tools"
        )


def _nth(first: ChatRequest, rid: str, index: int, choice: int) -> ChatRequest:
    """The same question once more: with a seed, each choice draws from its own."""
    seed = first.sampling.seed
    sampling = first.sampling if seed is None else dataclasses.replace(first.sampling, seed=(seed + choice) % 2**31)
    return dataclasses.replace(first, rid=f"{rid}-{index}", sampling=sampling)


def _message(message: ChatMessage, where: str) -> dict[str, Any]:
    if message.role == "function":
        raise Unsupported(f"{where}.role: functions are the older form of tools; use those", field=f"{where}.role")
    raw: dict[str, Any] = {"role": _ROLES.get(message.role, message.role), "content": _text(message, where)}
    if message.role == "tool":
        if not message.tool_call_id:
            place = f"{where}.tool_call_id"
            raise InvalidRequest(f"{place} is missing: it names the call of which this is the result", field=place)
        return {**raw, "call": message.tool_call_id}
    if message.tool_calls:
        raw["calls"] = [_call(call, f"{where}.tool_calls.{at}") for at, call in enumerate(message.tool_calls)]
    reasoning = message.reasoning_content or message.reasoning
    if reasoning and message.role == "assistant":
        raw["reasoning"] = reasoning
    return raw


def _call(call: CallBody, where: str) -> dict[str, Any]:
    arguments = parse_arguments(call.function.arguments, f"{where}.function.arguments")
    return {"name": call.function.name, "arguments": arguments, "identity": call.id}


def _text(message: ChatMessage, where: str) -> str:
    if message.content is None:
        if message.role != "assistant":
            raise InvalidRequest(f"{where}.content must be a text or a list of parts", field=f"{where}.content")
        return ""
    if isinstance(message.content, str):
        return message.content
    for index, part in enumerate(message.content):
        if part.type != "text":
            place = f"{where}.content.{index}.type"
            raise Unsupported(f"{place}={part.type!r:.40}: this server reads text only", field=place)
    return "".join(part.text for part in message.content)
