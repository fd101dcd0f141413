"""What the exports of chat programs share: the branches of a tree of messages, and the turns that a branch makes.

Every reader in `exports/` uses it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, takewhile
from typing import Any

from pipelines.formats.records import BadRecord
from pipelines.formats.translation import LeftOut, Translation, message, written

MAX_BRANCHES = 1000  # of one record


def branches(parents: Mapping[str, str | None], current: str | None, all_branches: bool) -> Iterator[list[str]]:
    """Paths from the root to a leaf, the one that ends at `current` first. Without it: the one to the last leaf."""
    inner = set(parents.values())
    leaves = [name for name in parents if name not in inner]
    if current not in parents:
        current = leaves[-1] if leaves else None
    if current is None:
        raise BadRecord("bad_shape", "its messages have no last one")
    yield _path(parents, current)
    for leaf in leaves if all_branches else ():
        if leaf != current:
            yield _path(parents, leaf)


def _path(parents: Mapping[str, str | None], leaf: str) -> list[str]:
    path: dict[str, None] = {}
    node: str | None = leaf
    while node is not None and node in parents:
        if node in path:
            raise BadRecord("bad_shape", f"message {node!r:.80} is its own ancestor")
        path[node] = None
        node = parents[node]
    return list(reversed(path))


class Dialogue:
    """The turns of one branch while a reader goes through its messages.

    Messages of the assistant in a row are one answer: the program showed them as one. After `stop` nothing more of the
    branch is taken, and the question whose answer is missing is left out too.
    """

    def __init__(self, system: str = "") -> None:
        # the content of each is the list of its texts until the end: joined one by one they would be copied each time
        self._messages: list[dict[str, Any]] = [message("system", [system])] if system.strip() else []
        self._given: list[list[Any]] = [[] for _ in self._messages]  # the program's messages behind each turn
        self._left_out: list[LeftOut] = []
        self._changed: dict[str, int] = {}
        self._stopped = ""

    def say(self, role: str, text: Any, given: Any, **others: Any) -> None:
        if self._stopped:
            self.leave_out(self._stopped, given)
        elif role == "assistant" and self._messages and self._messages[-1]["role"] == role:
            self._messages[-1]["content"].append(text)
            self._messages[-1].update(others)
            self._given[-1].append(given)
        else:
            self._messages.append(message(role, [text], **others))
            self._given.append([given])

    def leave_out(self, reason: str, given: Any) -> None:
        self._left_out.append(LeftOut(reason, given))

    def change(self, what: str, number: int = 1) -> None:
        if number:
            self._changed[what] = self._changed.get(what, 0) + number

    def stop(self, reason: str, given: Any) -> None:
        """The answer that `given` belongs to cannot be used: this round and all after it are left out."""
        while self._messages and self._messages[-1]["role"] != "system":
            role = self._messages.pop()["role"]
            self._left_out += [LeftOut(reason, one) for one in self._given.pop()]
            if role == "user":
                break
        self.leave_out(reason, given)
        self._stopped = reason

    def ended(self, about: Mapping[str, Any], branch: str = "") -> Translation:
        """The record. Raises BadRecord for a branch of which nothing could be used."""
        if self._stopped and all(one["role"] == "system" for one in self._messages):
            raise BadRecord(self._stopped, _WHY[self._stopped])
        messages = [{**one, "content": _together(one["content"])} for one in self._messages]
        record = {**{name: value for name, value in about.items() if value}, "messages": messages}
        return Translation(record, self._left_out, self._changed, branch)


_WHY = {
    "interrupted": "its first answer was interrupted",
    "canvas": "its first answer edits a document that the export does not hold whole",
}


def _together(said: list[Any]) -> Any:
    """What was said in one turn: a text, or, from the first thing on that is none, its parts."""
    texts = list(takewhile(lambda one: isinstance(one, str), said))
    text = texts[0] if len(texts) == 1 else "\n\n".join(one for one in texts if one.strip())
    others = said[len(texts) :]
    if not others or len(said) == 1:
        return others[0] if others else text
    whole = [text, *others] if texts else others
    parts = [one if isinstance(one, list) else [{"type": "text", "text": one}] for one in whole]
    return list(chain.from_iterable(parts))


def distinct(translations: Callable[[], Iterator[Translation]]) -> Iterator[Translation]:
    """Those that say something of their own: a branch that ends in unseen messages is the beginning of another.

    Translates twice, so that never more than one is held. Raises BadRecord for too many before it gives the first.
    """
    beginnings: set[bytes] = set()
    for number, one in enumerate(translations()):
        if number == MAX_BRANCHES:
            raise BadRecord("bad_shape", f"more than {MAX_BRANCHES} branches; `branches: shown` reads one of them")
        beginnings.update(_digests(one)[:-1])
    for number, one in enumerate(translations()):
        whole = _digests(one)[-1]
        if number == 0 or one.error or whole not in beginnings:
            yield one
        if not one.error:
            beginnings.add(whole)  # another that says the same says nothing of its own


def _digests(one: Translation) -> list[bytes]:
    """One for each beginning of what the branch says, from nothing to the whole."""
    found = [b""]
    for said in () if one.error else one.record["messages"]:
        found.append(hashlib.sha256(found[-1] + written(said)).digest())
    return found


def every_branch(
    messages: Mapping[str, Any],
    parents: Mapping[str, str | None],
    current: str | None,
    all_branches: bool,
    translate: Callable[[list[Any], str], Translation],
) -> Iterator[Translation]:
    """The branches as records; of the shown branch alone, with the messages beside it as left out."""

    def translations() -> Iterator[Translation]:
        for number, path in enumerate(branches(parents, current, all_branches)):
            yield _one(messages, path, translate, path[-1] if number else "")

    if all_branches:
        yield from distinct(translations)
        return
    [path] = branches(parents, current, all_branches)
    made, shown = _one(messages, path, translate, ""), set(path)
    beside = [LeftOut("other_branch", one) for name, one in messages.items() if name not in shown and one]
    yield replace(made, left_out=[*made.left_out, *beside])


def _one(
    messages: Mapping[str, Any], path: list[str], translate: Callable[[list[Any], str], Translation], name: str
) -> Translation:
    try:
        return translate([one for node in path if (one := messages[node])], name)
    except BadRecord as error:
        return Translation({}, branch=name, error=error)
