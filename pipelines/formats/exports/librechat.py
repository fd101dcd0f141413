"""LibreChat: a conversation exported as JSON, as a list or as a tree. `foreign.py` calls it.

    {"conversationId", "title", "options", "messages": [{"messageId", "parentMessageId", "isCreatedByUser", "text"}, …]}

With `recursive: true` a message holds those after it under `children`.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from pipelines.formats.exports.dialogue import Dialogue, every_branch
from pipelines.formats.translation import Format, Record, Translation, objects, scalars

UNSEEN = {"think": "thoughts", "tool_call": "tool_turn", "error": "error_message"}


def _recognises(record: Record) -> bool:
    messages = record.get("messages") or record.get("messagesTree")
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and "isCreatedByUser" in first


def _translate(record: Record, all_branches: bool) -> Iterator[Translation]:
    name = "messages" if record.get("messages") else "messagesTree"
    found = dict(_flat(objects(record[name], name), None))
    parents = {node: parent for node, (parent, _) in found.items()}
    messages = {node: one for node, (_, one) in found.items()}
    yield from every_branch(messages, parents, next(reversed(parents), None), all_branches, partial(_branch, record))


def _flat(messages: list[dict[str, Any]], above: str | None) -> Iterator[tuple[str, tuple[str | None, dict[str, Any]]]]:
    """Each message under its name, with the name of the one before it."""
    left = [(one, above) for one in reversed(messages)]
    while left:
        one, parent = left.pop()
        name = str(one.get("messageId"))
        yield name, (parent or one.get("parentMessageId"), one)
        left += [(child, name) for child in reversed(objects(one.get("children") or [], "children"))]


def _branch(record: Record, messages: list[dict[str, Any]], name: str) -> Translation:
    options = record.get("options") if isinstance(record.get("options"), dict) else {}
    assert isinstance(options, dict)
    dialogue = Dialogue(str(options.get("system") or options.get("promptPrefix") or ""))
    for one in messages:
        _add(dialogue, one)
    models = [one["model"] for one in messages if isinstance(one.get("model"), str) and not one.get("isCreatedByUser")]
    about = {"id": record.get("conversationId"), "model": models[-1] if models else options.get("model")}
    return dialogue.ended({**about, **scalars(record, "conversationId", "model")}, name)


def _add(dialogue: Dialogue, one: dict[str, Any]) -> None:
    if one.get("error") is True:
        dialogue.leave_out("error_message", one)
    elif one.get("unfinished") is True:
        dialogue.stop("interrupted", one)
    else:
        rating = {"feedback": one["feedback"]} if one.get("feedback") else {}
        role = "user" if one.get("isCreatedByUser") else "assistant"
        dialogue.say(role, _content(dialogue, one), one, **rating)
        dialogue.change("attachments_left_out", len(one.get("files") or ()))


def _content(dialogue: Dialogue, one: dict[str, Any]) -> Any:
    parts = one.get("content")
    if not isinstance(parts, list) or not parts:
        return one.get("text")
    kept = []
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind in UNSEEN:
            dialogue.leave_out(UNSEEN[kind], part)
        elif kind == "text" and isinstance(part, dict):
            text = part.get("text")
            kept.append({"type": "text", "text": text.get("value") if isinstance(text, dict) else text})
        else:
            kept.append(part)
    return kept


FORMAT = Format("a LibreChat export", _recognises, _translate)
