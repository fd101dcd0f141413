"""Calls of tools as clients of chat completions read them: in deltas, and in a whole message. `frames.py` calls it."""

from collections.abc import Iterator
from typing import Any

from services.chat.reader import Text
from services.chat.said import Said, call_id

CALL_PARTS = frozenset({"call", "arguments"})


class CallDeltas:
    """The deltas of one choice. Each has its call's own index; only the first of a call has its id and name."""

    def __init__(self, rid: str) -> None:
        self._rid = rid
        self._index = -1
        self._name = ""  # of a call that no delta has told of: it may not be whole

    def take(self, text: Text) -> Iterator[dict[str, Any]]:
        """More text of a part, `call` or `arguments`."""
        if text.part == "call":
            self._name += text.text
            return
        yield from self.begun()
        yield {"index": self._index, "function": {"arguments": text.text}}

    def begun(self) -> Iterator[dict[str, Any]]:
        """The first delta of a call whose name is whole by now."""
        if self._name:
            self._index += 1
            yield {"index": self._index, **_call(self._rid, self._index, self._name, "")}
            self._name = ""


def whole_calls(said: Said, rid: str) -> dict[str, Any]:
    """The field of a message, if it calls tools."""
    calls = [_call(rid, index, name, arguments) for index, (name, arguments) in enumerate(said.calls)]
    return {"tool_calls": calls} if calls else {}


def _call(rid: str, index: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id(rid, index), "type": "function", "function": {"name": name, "arguments": arguments}}
