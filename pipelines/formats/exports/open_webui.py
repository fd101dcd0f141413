"""Open WebUI: the chats that its settings export. `foreign.py` calls it.

    {"id", "title", "chat": {"models", "history": {"currentId", "messages": {id: {"parentId", "role", "content"}}}}}

Older exports have the list `chat.messages` alone. What a model thought, or did with tools, lies in its answers as
`<details>`. A thumb up or down (`annotation`) goes with its answer.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from pipelines.formats.exports.dialogue import Dialogue, every_branch
from pipelines.formats.records import BadRecord
from pipelines.formats.translation import Format, Record, Translation, objects, scalars

OPENING = re.compile(r'<details type="(reasoning|code_interpreter|tool_calls)"')
END = "</details>"
SPACE = re.compile(r"\s*")
REASONS = {"reasoning": "thoughts"}


def _translate(record: Record, all_branches: bool) -> Iterator[Translation]:
    messages, parents, current = _tree(record["chat"])
    yield from every_branch(messages, parents, current, all_branches, partial(_branch, record))


def _tree(chat: Record) -> tuple[dict[str, dict[str, Any]], dict[str, str | None], str | None]:
    history = chat.get("history") or {}
    if isinstance(found := history.get("messages"), dict) and found:
        if not all(isinstance(one, dict) for one in found.values()):
            raise BadRecord("bad_shape", "chat.history.messages holds what is no object")
        return found, {name: one.get("parentId") for name, one in found.items()}, history.get("currentId")
    listed = objects(chat.get("messages"), "chat.messages")
    names = [str(number) for number in range(len(listed))]
    return dict(zip(names, listed, strict=True)), dict(zip(names, [None, *names], strict=False)), None


def _branch(record: Record, messages: list[dict[str, Any]], name: str) -> Translation:
    chat = record["chat"]
    dialogue = Dialogue(str(chat.get("system") or (chat.get("params") or {}).get("system") or ""))
    for one in messages:
        _add(dialogue, one)
    models = [one["model"] for one in messages if isinstance(one.get("model"), str)] or chat.get("models") or [""]
    about = {"id": record.get("id"), "title": record.get("title"), "model": models[-1]}
    return dialogue.ended({**about, **scalars(record, "id", "title", "user_id", "share_id")}, name)


def _add(dialogue: Dialogue, one: dict[str, Any]) -> None:
    role = str(one.get("role"))
    if one.get("error"):
        dialogue.leave_out("error_message", one)
    elif role == "assistant" and one.get("done") is False:
        dialogue.stop("interrupted", one)
    elif any(isinstance(file, dict) and file.get("type") == "image" for file in one.get("files") or ()):
        dialogue.say(role, [{"type": "image"}], one)
    else:
        text = one.get("content")
        if role == "assistant" and isinstance(text, str):
            text = _answer(dialogue, text)
        rating = {"annotation": one["annotation"]} if one.get("annotation") else {}
        dialogue.say(role, text, one, **rating)
        dialogue.change("attachments_left_out", len(one.get("files") or ()))


def _answer(dialogue: Dialogue, text: str) -> str:
    """The text outside the details. Behind an opening without an end none has one, so nobody looks there."""
    kept, at = [], 0
    while found := OPENING.search(text, at):
        opened = text.find(">", found.end())
        end = text.find(END, opened) if opened >= 0 else -1
        if end < 0:
            break
        space = SPACE.match(text, end + len(END))
        assert space
        dialogue.leave_out(REASONS.get(found[1], "tool_turn"), text[found.start() : space.end()])
        kept.append(text[at : found.start()])
        at = space.end()
    return "".join([*kept, text[at:]]).strip()


FORMAT = Format("an Open WebUI export", lambda record: isinstance(record.get("chat"), dict), _translate)
