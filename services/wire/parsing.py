"""Parses untrusted JSON into a request. Every front end uses it, so all refuse the same values with the same words."""

from collections.abc import Mapping
from typing import Any

from services.errors import InvalidRequest, shown
from services.wire.keys import check_name
from services.wire.messages import ChatRequest, Message, Priority, SamplingOptions, Truncation

MAX_MESSAGES = 2_000

_RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "max_new_tokens": (int, 1, 131_072),
    "temperature": (float, 0, 5),
    "top_p": (float, 0.001, 1),
    "top_k": (int, 0, 1_000_000),
    "repetition_penalty": (float, 0.1, 10),
    "seed": (int, 0, 2**31 - 1),
}


def parse_request(raw: object, *, user: str, max_chars: int) -> ChatRequest:
    """A request from untrusted JSON `{id, model, messages, sampling?, priority?, truncation?}`.

    Raises InvalidRequest naming what is wrong.
    """
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"a request must be an object, not {type(raw).__name__}")
    unknown = set(raw) - {"id", "model", "messages", "sampling", "priority", "truncation"}
    if unknown:
        raise InvalidRequest(f"unknown request field {sorted(map(str, unknown))[0]!r:.80}")
    rid = check_name(raw.get("id"), "id")
    model = check_name(raw.get("model"), "model")
    messages = parse_messages(raw.get("messages"), max_chars=max_chars)
    sampling = parse_sampling(raw.get("sampling") or {})
    priority, truncation = _parse_priority(raw.get("priority")), _parse_truncation(raw.get("truncation"))
    return ChatRequest(rid, check_name(user, "user"), model, messages, sampling, priority, truncation)


def parse_sampling(raw: object) -> SamplingOptions:
    """Sampling options from untrusted JSON. Raises InvalidRequest naming the field, the value and the range."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"sampling must be an object, not {type(raw).__name__}")
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name == "stop":
            values["stop"] = _parse_stop(value)
        elif name in _RANGES:
            if value is None and name == "seed":
                continue
            values[name] = _parse_number(name, value)
        else:
            known = ", ".join([*_RANGES, "stop"])
            raise InvalidRequest(f"unknown sampling option {shown(name)}; known: {known}")
    return SamplingOptions(**values)


def parse_messages(raw: object, *, max_chars: int) -> tuple[Message, ...]:
    """Messages from untrusted JSON: an optional system message, then at least one more; the last is the user's."""
    if not isinstance(raw, list) or not raw or len(raw) > MAX_MESSAGES:
        raise InvalidRequest(f"messages must be a list of 1 to {MAX_MESSAGES} messages")
    messages = []
    for index, message in enumerate(raw):
        messages.append(_parse_message(message, f"messages[{index}]"))
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise InvalidRequest("the last message must be the user's and not empty")
    chars = sum(len(message.text) for message in messages)
    if chars > max_chars:
        raise InvalidRequest(f"the messages hold {chars} characters; the limit is {max_chars}")
    return tuple(messages)


def _parse_message(raw: object, where: str) -> Message:
    if not isinstance(raw, Mapping) or set(raw) - {"reasoning"} != {"role", "content"}:
        raise InvalidRequest(f"{where} must be an object with role and content, an assistant's perhaps with reasoning")
    if raw["role"] not in ("system", "user", "assistant"):
        raise InvalidRequest(f"{where}.role={shown(raw['role'])} is not system, user or assistant")
    if "reasoning" in raw and raw["role"] != "assistant":
        raise InvalidRequest(f"{where}.reasoning: only an assistant's message has one; leave it out")
    for name in ("content", "reasoning"):
        if not isinstance(raw.get(name, ""), str):
            raise InvalidRequest(f"{where}.{name} must be text, not {type(raw[name]).__name__}")
        _check_text(raw.get(name, ""), f"{where}.{name}")
    return Message(raw["role"], raw["content"], raw.get("reasoning", ""))


def _parse_number(name: str, value: Any) -> float:
    kind, low, high = _RANGES[name]
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not low <= value <= high:
        raise InvalidRequest(f"sampling.{name}={shown(value)} is not a number from {low} to {high}")
    return kind(value)


def _parse_stop(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or len(value) > 16:
        raise InvalidRequest("sampling.stop must be a list of at most 16 strings")
    if not all(isinstance(s, str) and 0 < len(s) <= 256 for s in value):
        raise InvalidRequest("each stop string must have 1 to 256 characters")
    for text in value:
        _check_text(text, "a stop string")
    return tuple(value)


def _parse_priority(raw: object) -> Priority:
    if raw in (None, "interactive"):
        return "interactive"
    if raw == "batch":
        return "batch"
    raise InvalidRequest(f"priority {raw!r:.80} is not interactive or batch")


def _parse_truncation(raw: object) -> Truncation:
    if raw in (None, "auto"):
        return "auto"
    if raw == "disabled":
        return "disabled"
    raise InvalidRequest(f"truncation {shown(raw)} is not auto or disabled")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} holds half of a surrogate pair, which is not valid Unicode") from None
