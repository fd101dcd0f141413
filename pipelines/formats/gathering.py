"""Records that a file writes otherwise than one after another. `read.py` passes what it finds through `gathered`.

    {"version": 1, "data": [{…}, …]}                a list in a wrapper, or several: {"train": […], "test": […]}
    OpenAssistant's flat files                      one message a line; those of a tree follow each other
    SillyTavern's chats                             a line about the chat, then one message a line

A record that the file itself holds goes through unchanged.
"""

from collections.abc import Iterator
from typing import Any

from pipelines.formats import foreign
from pipelines.formats.records import MAX_RECORD_BYTES, Found, Parsed
from pipelines.formats.translation import written

TREE_KEYS = frozenset({"message_id", "parent_id", "text", "role"})
CHAT_KEYS = frozenset({"user_name", "character_name"})
LINE_KEYS = frozenset({"mes", "is_user"})


def gathered(found: Iterator[Found]) -> Iterator[Found]:
    """The records, in order. A gathered one has the line where it begins."""
    whole: _Group | None = None
    for one in found:
        if whole is not None and whole.takes(one):
            continue
        if whole is not None:
            yield whole.record()
        whole = _begun(one)
        if whole is None:
            yield from _unwrapped(one)
    if whole is not None:
        yield whole.record()


# -- wrappers --------------------------------------------------------------------------------------------------------


def _unwrapped(found: Found) -> Iterator[Found]:
    if not isinstance(found, Parsed) or not isinstance(found.value, dict) or foreign.is_known(found.value):
        yield found
        return
    lists = [value for value in found.value.values() if _is_list_of_records(value)]
    if not lists:
        yield found
    for value in lists:
        for one in value:
            yield Parsed(found.line, one, written(one), found.repaired)


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and foreign.is_known(value[0])


# -- one message a line ----------------------------------------------------------------------------------------------


def _begun(found: Found) -> "_Group | None":
    if not isinstance(found, Parsed) or not isinstance(found.value, dict):
        return None
    keys = found.value.keys()
    if keys >= CHAT_KEYS and "mes" not in keys:
        return _Chat(found)
    is_root = isinstance(found.value.get("message_id"), str) and not found.value.get("parent_id")
    if keys >= TREE_KEYS - {"parent_id"} and "replies" not in keys and is_root:
        return _Tree(found)
    return None


class _Group:
    """Lines that make one record."""

    def __init__(self, first: Parsed) -> None:
        self._first = first
        self._repaired = first.repaired
        self._num_bytes = len(first.raw)

    def takes(self, found: Found) -> bool:
        """Whether this line belongs to the record. One record holds no more bytes than any other."""
        if not isinstance(found, Parsed) or not isinstance(found.value, dict) or not self._fits(found.value):
            return False
        self._num_bytes += len(found.raw)
        self._repaired |= found.repaired
        if self._num_bytes > MAX_RECORD_BYTES:
            return False
        self._add(found.value)
        return True

    def record(self) -> Parsed:
        value = self._value()
        return Parsed(self._first.line, value, written(value), self._repaired)

    def _fits(self, value: dict[str, Any]) -> bool:
        raise NotImplementedError

    def _add(self, value: dict[str, Any]) -> None:
        raise NotImplementedError

    def _value(self) -> dict[str, Any]:
        raise NotImplementedError


class _Tree(_Group):
    """OpenAssistant: each message names the one before it."""

    def __init__(self, first: Parsed) -> None:
        super().__init__(first)
        self._root = _with_replies(first.value)
        self._by_name = {first.value["message_id"]: self._root}

    def _fits(self, value: dict[str, Any]) -> bool:
        names = value.get("parent_id"), value.get("message_id")
        return all(isinstance(name, str) for name in names) and names[0] in self._by_name

    def _add(self, value: dict[str, Any]) -> None:
        self._by_name[value["message_id"]] = reply = _with_replies(value)
        self._by_name[value["parent_id"]]["replies"].append(reply)

    def _value(self) -> dict[str, Any]:
        return {"message_tree_id": self._root.get("message_tree_id") or self._root["message_id"], "prompt": self._root}


def _with_replies(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "replies": []}


class _Chat(_Group):
    """SillyTavern: who speaks is told by a flag. What the program itself says (`is_system`) is no turn."""

    def __init__(self, first: Parsed) -> None:
        super().__init__(first)
        self._lines: list[dict[str, Any]] = []

    def _fits(self, value: dict[str, Any]) -> bool:
        return value.keys() >= LINE_KEYS

    def _add(self, value: dict[str, Any]) -> None:
        self._lines.append(value)

    def _value(self) -> dict[str, Any]:
        return {**self._first.value, "chat": self._lines}
