"""Finds the answer of a logged call, which stands beside the `messages` that were sent. Only `shapes.py` calls it.

    OpenAI     {"messages": […], "choices": [{"message": {"role", "content"}, "finish_reason"}]}, or those in "response"
    Anthropic  {"messages": […], "response": {"role", "content", "stop_reason"}}
    Ollama     {"messages": […], "response": {"message": {"role", "content"}, "done_reason"}}
    text       {"messages": […], "response": "…"}

A record whose turns end with an answer already keeps all of these in `extra`.
"""

from collections.abc import Mapping
from typing import Any

END_REASONS = ("finish_reason", "stop_reason", "done_reason")
PLACES = ("choices", "response")


def with_answer(rest: dict[str, Any], turns: list[Any]) -> list[Any]:
    """The turns, and the logged answer if the last of them is a question; that answer is then taken out of `rest`."""
    last = turns[-1] if turns else None
    if not isinstance(last, dict) or last.get("role") != "user":
        return turns
    for place in PLACES:
        if (answer := _answer(rest.get(place))) is not None:
            _take(rest, place)
            return [*turns, answer]
    return turns


def _answer(logged: Any) -> dict[str, Any] | None:
    """The message in what a call returned, with the reason why it ended. Of several answers there is none to choose."""
    if isinstance(logged, str):
        return {"role": "assistant", "content": logged} if logged.strip() else None
    if isinstance(logged, list):
        return _answer(logged[0]) if len(logged) == 1 and isinstance(logged[0], dict) else None
    if not isinstance(logged, Mapping):
        return None
    if "choices" in logged:
        return _answer(logged["choices"])
    message = logged.get("message", logged)
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return None
    text = {name: message[name] for name in message if name in ("role", "content", "tool_calls", "refusal")}
    ended = {name: logged[name] for name in END_REASONS if isinstance(logged.get(name), str)}
    return {**text, **ended}


def _take(rest: dict[str, Any], place: str) -> None:
    """Remove the answer's text: a step that masks or repairs texts does not look into `extra`."""
    found = rest.pop(place)
    if isinstance(found, dict):
        others = {name: value for name, value in found.items() if name not in ("choices", "message", "content", "role")}
        rest.update({place: others} if others else {})
