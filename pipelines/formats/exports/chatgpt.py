"""ChatGPT: the records of `conversations.json` and of the numbered files. `foreign.py` calls it.

    {"id", "title", "current_node", "mapping": {node: {"parent", "message": {"author", "content", "metadata", …}}, …}}

The conversation that the page shows goes from `current_node` back by `parent`; what forks off it are other branches.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import orjson

from pipelines.formats.exports.dialogue import Dialogue, every_branch
from pipelines.formats.records import BadRecord
from pipelines.formats.translation import Format, Record, Translation, scalars
from services.conversations.chatgpt_messages import metadata, text_of, unseen
from services.conversations.documents import document
from services.errors import shown

FINISHED = ("", "stop", "unknown")


def _recognises(record: Record) -> bool:
    return "mapping" in record or ("title" in record and "conversation_id" in record)


def _translate(record: Record, all_branches: bool) -> Iterator[Translation]:
    mapping = record.get("mapping")
    if not isinstance(mapping, dict) or not all(isinstance(node, dict) for node in mapping.values()):
        raise BadRecord("bad_shape", f"mapping is {shown(mapping)}; an object of messages is needed")
    parents = {name: node.get("parent") for name, node in mapping.items()}
    messages = {name: node.get("message") for name, node in mapping.items()}
    yield from every_branch(messages, parents, record.get("current_node"), all_branches, partial(_branch, record))


def _branch(record: Record, messages: list[dict[str, Any]], name: str) -> Translation:
    dialogue = Dialogue()
    for one in messages:
        _add(dialogue, one)
    about = scalars(record, "id", "current_node", "default_model_slug")
    return dialogue.ended(
        {"id": record.get("id") or record.get("conversation_id"), "model": _model(record, messages), **about}, name
    )


def _model(record: Record, messages: list[dict[str, Any]]) -> Any:
    slugs = [slug for one in messages if (slug := metadata(one).get("model_slug"))]
    return slugs[-1] if slugs else record.get("default_model_slug")


def _add(dialogue: Dialogue, one: dict[str, Any]) -> None:
    role, content = str((one.get("author") or {}).get("role")), one.get("content") or {}
    if reason := unseen(one, role, content):
        dialogue.leave_out(reason, one)
    elif role == "assistant" and _is_interrupted(one):
        dialogue.stop("interrupted", one)
    elif str(one.get("recipient") or "all").startswith("canmore"):
        _add_canvas(dialogue, one, content)
    else:
        text, marks = text_of(content)
        dialogue.say(role, text, one)
        dialogue.change("citations", marks)
        dialogue.change("attachments_left_out", len(metadata(one).get("attachments") or ()))


def _is_interrupted(one: Mapping[str, Any]) -> bool:
    ended = (metadata(one).get("finish_details") or {}).get("type", "")
    return one.get("status") == "in_progress" or ended not in FINISHED


def _add_canvas(dialogue: Dialogue, one: dict[str, Any], content: Mapping[str, Any]) -> None:
    """A document beside the chat: its text is part of the answer. Changes to it are patches, which tell no answer."""
    try:
        made = orjson.loads(str(text_of(content)[0]))
    except orjson.JSONDecodeError:
        made = None
    if isinstance(made, dict) and isinstance(made.get("content"), str):
        kind = str(made.get("type", ""))
        dialogue.say("assistant", document(kind.partition("/")[2], made["content"]), one)
        dialogue.change("documents")
    else:
        dialogue.stop("canvas", one)


FORMAT = Format("a ChatGPT export", _recognises, _translate)
