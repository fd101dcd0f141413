"""From OpenAI's bodies to our requests: one for each choice of the answer."""

import dataclasses
import hashlib
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

from flask import Request
from pydantic import BaseModel

from services.errors import InvalidRequest, Unsupported
from services.serving.registry import Registry
from services.wire.messages import ChatRequest
from services.wire.parsing import parse_request
from services.wire.tools import parse_arguments
from webapp.api.bodies import (
    MAX_CHOICES,
    UNSERVED,
    CallBody,
    ChatCompletionBody,
    ChatMessage,
    CompletionBody,
    SamplingFields,
    body_of,
    parsed,
)

IDEMPOTENCY_KEY = "Idempotency-Key"
_ROLES = {"developer": "system"}


Asked = TypeVar("Asked", bound=BaseModel)


def idempotency_key(request: Request) -> str:
    """What the client calls its question; empty if it has no name for it."""
    return request.headers.get(IDEMPOTENCY_KEY, "")


def asked(
    request: Request, user: str, kind: type[Asked], unserved: Mapping[str, tuple[Any, ...]] = UNSERVED
) -> tuple[str, Asked]:
    """What the ids of a body's requests begin with, and the body. Nobody holds its bytes afterwards.

    With an idempotency key the id is the same for the same body. The queue accepts an id once: whoever repeats such a
    body reads the answer of the first.
    """
    data = body_of(request)
    return _base_id(request, user, data), parsed(data, kind, unserved)


def _base_id(request: Request, user: str, data: bytes) -> str:
    key = idempotency_key(request)
    if not key:
        return uuid.uuid4().hex
    whole = (user.encode(), request.path.encode(), key.encode(), data)
    return "key-" + hashlib.sha256(b"\0".join(hashlib.sha256(each).digest() for each in whole)).hexdigest()[:40]


def chat_orders(body: ChatCompletionBody, rid: str, user: str, max_chars: int) -> list[ChatRequest]:
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
    max_tokens = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    return _choices(body, [raw], max_tokens, rid, user, max_chars)


def completion_orders(body: CompletionBody, rid: str, user: str, max_chars: int) -> list[ChatRequest]:
    """One request for each prompt and choice, in that order. Raises InvalidRequest."""
    if not all(body.prompts):
        raise InvalidRequest("prompt must not be empty", field="prompt")
    return _choices(body, [{"prompt": prompt} for prompt in body.prompts], body.max_tokens, rid, user, max_chars)


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


def check_tools(order: ChatRequest, registry: Registry) -> None:
    """No request with tools goes to a model of which a worker knows none. Raises Unsupported."""
    if order.has_tools and registry.lacks(order.model, "tools"):
        raise Unsupported(
            f"{order.model} cannot call tools: its chat template writes none, or its calls are not understood; "
            "leave tools and tool messages out, or choose another model",
            field="tools",
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
