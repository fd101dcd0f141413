"""Turns of a training record → messages, with calls of tools and results. `records.py` and `judged.py` call it.

`pipelines/formats/tool_calls.py` shows the shape, and reads the calls.
"""

from collections.abc import Mapping
from typing import Any, cast

from pipelines.formats.records import BadRecord
from pipelines.formats.tool_calls import calls_of, text_of
from pipelines.records.conversation import Turn
from services.errors import shown
from services.wire.messages import CallMessage, Message, ResultMessage


def message_of(turn: Turn, given: Mapping[str, Any], reasoning: str, number: int) -> Message:
    """The message of a turn. `given` has what the turn says about tools. Raises BadRecord."""
    role = cast(Any, turn.role)  # the template judges roles
    if calls := given.get("tool_calls"):
        if turn.role != "assistant":
            raise BadRecord(
                "bad_shape", f"turn {number} is {shown(turn.role)} and has tool_calls; assistants call tools"
            )
        return CallMessage(role, turn.text, reasoning, calls_of(calls, f"tool_calls of turn {number}"))
    if turn.role == "tool":
        names = (text_of(given.get(name), f"{name} of turn {number}") for name in ("tool_call_id", "name"))
        return ResultMessage(role, turn.text, reasoning, *names)
    return Message(role, turn.text, reasoning)
