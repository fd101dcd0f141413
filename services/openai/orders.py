"""From OpenAI's bodies to our requests: one for each choice of the answer."""

import dataclasses
from typing import Any

from services.errors import InvalidRequest, Unsupported
from services.openai.bodies import (
    MAX_CHOICES,
    ChatCompletionBody,
    ChatMessage,
    CompletionBody,
    SamplingFields,
)
from services.wire.messages import ChatRequest, Priority
from services.wire.parsing import parse_request

_ROLES = {"developer": "system"}


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
    raw: dict[str, Any] = {"messages": messages, "continue_final": continues, "thinking": body.thinking}
    max_tokens = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    return _choices(body, [{**raw, "priority": priority}], max_tokens, rid, user, max_chars)


def completion_orders(
    body: CompletionBody, rid: str, user: str, max_chars: int, priority: Priority = "interactive"
) -> list[ChatRequest]:
    """One request for each prompt and choice, in that order. Raises InvalidRequest."""
    if not all(body.prompts):
        raise InvalidRequest("prompt must not be empty", field="prompt")
    raws = [{"prompt": prompt, "priority": priority} for prompt in body.prompts]
    return _choices(body, raws, body.max_tokens, rid, user, max_chars)


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


def _nth(first: ChatRequest, rid: str, index: int, choice: int) -> ChatRequest:
    """The same question once more: with a seed, each choice draws from its own."""
    seed = first.sampling.seed
    sampling = first.sampling if seed is None else dataclasses.replace(first.sampling, seed=(seed + choice) % 2**31)
    return dataclasses.replace(first, rid=f"{rid}-{index}", sampling=sampling)


def _message(message: ChatMessage, where: str) -> dict[str, str]:
    if message.role in ("tool", "function") or message.tool_calls:
        raise Unsupported(f"{where}: tools are not served by this server", field=where)
    raw = {"role": _ROLES.get(message.role, message.role), "content": _text(message, where)}
    reasoning = message.reasoning_content or message.reasoning
    if reasoning and message.role == "assistant":
        raw["reasoning"] = reasoning
    return raw


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
