"""Parses untrusted JSON into a request. Every front end uses it, so all refuse the same values with the same words."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from services.errors import InvalidRequest, shown
from services.grammar.response_format import grammar_of
from services.wire.keys import check_name
from services.wire.messages import CallMessage, ChatRequest, Message, Priority, SamplingOptions, Truncation
from services.wire.tools import (
    parse_call_message,
    parse_result_message,
    parse_strict_tools,
    parse_tool_choice,
    parse_tools,
)

MAX_MESSAGES = 2_000

_RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "max_new_tokens": (int, 1, 131_072),
    "temperature": (float, 0, 5),
    "top_p": (float, 0.001, 1),
    "top_k": (int, 0, 1_000_000),
    "repetition_penalty": (float, 0.1, 10),
    "seed": (int, 0, 2**31 - 1),
    "min_p": (float, 0, 1),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
}
_MAY_BE_NULL = ("seed", "min_p", "presence_penalty", "frequency_penalty", "logit_bias", "ignore_eos", "response_format")
_OTHERS = ("stop", "logit_bias", "ignore_eos", "response_format")
_FIELDS = {field.name for field in fields(ChatRequest)} - {"rid", "user", "strict_tools"} | {"id"}
MAX_BIASES = 1_024
_MAX_BIAS = 100
_MAX_TOKEN_ID = 2**31 - 1


def parse_request(raw: object, *, user: str, max_chars: int) -> ChatRequest:
    """A request from untrusted JSON `{id, model, messages, sampling?, priority?, truncation?, thinking?, …}`.

    `{id, model, prompt, …}` has a text to continue instead of messages. Raises InvalidRequest naming what is wrong.
    """
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"a request must be an object, not {type(raw).__name__}")
    if unknown := set(raw) - _FIELDS:
        raise InvalidRequest(f"unknown request field {sorted(map(str, unknown))[0]!r:.80}")
    rid = check_name(raw.get("id"), "id")
    model = check_name(raw.get("model"), "model")
    prompt = _parse_prompt(raw, max_chars)
    continues = _parse_switch(raw.get("continue_final"), "continue_final") is True
    sampling = parse_sampling(raw.get("sampling") or {})
    if continues and sampling.response_format is not None:
        raise InvalidRequest(
            "response_format: the answer must not be begun by the request; leave its beginning out",
            field="response_format",
        )
    tools = parse_tools(raw.get("tools"))
    _check_chars("tools hold", len(str(tools)), max_chars)
    if tools and sampling.response_format is not None:
        raise InvalidRequest(
            "response_format has no meaning beside tools; leave one of the two out", field="response_format"
        )
    messages = () if prompt else parse_messages(raw.get("messages"), max_chars=max_chars, continue_final=continues)
    return ChatRequest(
        rid,
        check_name(user, "user"),
        model,
        messages,
        sampling,
        _parse_priority(raw.get("priority")),
        _parse_truncation(raw.get("truncation")),
        _parse_switch(raw.get("thinking"), "thinking"),
        continues,
        prompt,
        tools,
        parse_tool_choice(raw.get("tool_choice"), tools),
        _parse_switch(raw.get("parallel_tool_calls"), "parallel_tool_calls") is not False,
        parse_strict_tools(raw.get("tools"), tools),
    )


def parse_sampling(raw: object) -> SamplingOptions:
    """Sampling options from untrusted JSON. Raises InvalidRequest naming the field, the value and the range."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"sampling must be an object, not {type(raw).__name__}")
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in _RANGES and name not in _OTHERS:
            known = ", ".join([*_RANGES, *_OTHERS])
            raise InvalidRequest(f"unknown sampling option {shown(name)}; known: {known}")
        if value is not None or name not in _MAY_BE_NULL:
            values[name] = _parse_option(name, value)
    if values.get("response_format") and values.get("ignore_eos"):
        raise InvalidRequest("sampling.ignore_eos has no meaning beside a response_format; leave one of the two out")
    return SamplingOptions(**values)


def parse_messages(raw: object, *, max_chars: int, continue_final: bool = False) -> tuple[Message, ...]:
    """Messages from untrusted JSON: an optional system message, then at least one more; the last is the user's or a
    tool's.

    With `continue_final` the last is the assistant's: the beginning of the answer, perhaps empty.
    """
    if not isinstance(raw, list) or not raw or len(raw) > MAX_MESSAGES:
        raise InvalidRequest(f"messages must be a list of 1 to {MAX_MESSAGES} messages")
    messages: list[Message] = []
    for index, message in enumerate(raw):
        messages.append(_parse_message(message, f"messages[{index}]", messages))
    _check_last(messages[-1], continue_final)
    _check_chars("messages hold", sum(len(message.text) for message in messages), max_chars)
    return tuple(messages)


def _check_last(message: Message, continue_final: bool) -> None:
    if continue_final and message.role != "assistant":
        raise InvalidRequest("continue_final: the last message must be the assistant's, which the model continues")
    if continue_final and isinstance(message, CallMessage):
        raise InvalidRequest("the last message calls tools; send their results behind it, or leave it out")
    if message.role == "tool":
        return
    if not continue_final and (message.role != "user" or not message.content.strip()):
        raise InvalidRequest("the last message must be the user's and not empty")


def _parse_prompt(raw: Mapping[str, Any], max_chars: int) -> str:
    """The bare prompt of a request; empty for one with messages."""
    prompt = raw.get("prompt")
    if prompt is None or prompt == "":
        return ""
    if not isinstance(prompt, str):
        raise InvalidRequest(f"prompt must be text, not {type(prompt).__name__}")
    for name in ("messages", "thinking", "continue_final", "tools"):
        if raw.get(name):
            raise InvalidRequest(f"{name} has no meaning beside a prompt; leave one of the two out")
    _check_text(prompt, "prompt")
    _check_chars("prompt holds", len(prompt), max_chars)
    return prompt


def _check_chars(what: str, chars: int, max_chars: int) -> None:
    if chars > max_chars:
        raise InvalidRequest(f"the {what} {chars} characters; the limit is {max_chars}")


def _parse_message(raw: object, where: str, before: Sequence[Message]) -> Message:
    if isinstance(raw, Mapping) and raw.get("role") == "tool" and set(raw) - {"name"} == {"role", "content", "call"}:
        _check_texts(raw, where, ("content", "call"))
        return parse_result_message(raw, where, before)
    if not isinstance(raw, Mapping) or set(raw) - {"reasoning", "calls"} != {"role", "content"}:
        raise InvalidRequest(f"{where} must be an object with role and content, an assistant's perhaps with reasoning")
    if raw["role"] not in ("system", "user", "assistant"):
        raise InvalidRequest(f"{where}.role={shown(raw['role'])} is not system, user or assistant")
    if "reasoning" in raw and raw["role"] != "assistant":
        raise InvalidRequest(f"{where}.reasoning: only an assistant's message has one; leave it out")
    _check_texts(raw, where, ("content", "reasoning"))
    if "calls" in raw:
        return parse_call_message(raw, where)
    return Message(raw["role"], raw["content"], raw.get("reasoning", ""))


def _check_texts(raw: Mapping[str, Any], where: str, names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(raw.get(name, ""), str):
            raise InvalidRequest(f"{where}.{name} must be text, not {type(raw[name]).__name__}")
        _check_text(raw.get(name, ""), f"{where}.{name}")


def _parse_option(name: str, value: object) -> Any:
    if name == "stop":
        return _parse_stop(value)
    if name == "logit_bias":
        return _parse_bias(value)
    if name == "ignore_eos":
        return _parse_switch(value, f"sampling.{name}")
    if name == "response_format":
        return _parse_form(value)
    return _parse_number(name, value)


def _parse_form(raw: object) -> Mapping[str, Any]:
    """The form of an answer. What its grammar cannot promise is refused here, where the asker hears it at once."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"response_format must be an object, not {type(raw).__name__}")
    grammar_of(raw)
    return raw


def _parse_bias(raw: object) -> dict[int, float]:
    """Token id → bias. JSON has the ids as text."""
    if not isinstance(raw, Mapping) or len(raw) > MAX_BIASES:
        raise InvalidRequest(f"sampling.logit_bias must be an object of at most {MAX_BIASES} token ids and their bias")
    return {_parse_token_id(token_id): _parse_one_bias(token_id, bias) for token_id, bias in raw.items()}


def _parse_token_id(raw: object) -> int:
    text = str(raw) if isinstance(raw, str | int) and not isinstance(raw, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_TOKEN_ID)) and int(text) <= _MAX_TOKEN_ID):
        raise InvalidRequest(f"sampling.logit_bias names {shown(raw)}, which is no token id")
    return int(text)


def _parse_one_bias(token_id: object, bias: object) -> float:
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not -_MAX_BIAS <= bias <= _MAX_BIAS:
        place = f"sampling.logit_bias[{shown(token_id)}]"
        raise InvalidRequest(f"{place}={shown(bias)} is not a number from {-_MAX_BIAS} to {_MAX_BIAS}")
    return float(bias)


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


def _parse_switch(raw: object, name: str) -> bool | None:
    if raw is None or isinstance(raw, bool):
        return raw
    raise InvalidRequest(f"{name}={shown(raw)} is not true or false")


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} holds half of a surrogate pair, which is not valid Unicode") from None
