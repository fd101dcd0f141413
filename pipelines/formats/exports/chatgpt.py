"""ChatGPT: the records of `conversations.json` and of the numbered files. `foreign.py` calls it.

    {"id", "title", "current_node", "mapping": {node: {"parent", "message": {"author", "content", "metadata", …}}, …}}

The conversation that the page shows goes from `current_node` back by `parent`; what forks off it are other branches.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import orjson

from pipelines.formats.exports.dialogue import Dialogue, document, every_branch
from pipelines.formats.records import BadRecord
from pipelines.formats.translation import Format, Record, Translation, scalars
from services.errors import shown

UNSEEN = {
    "thoughts": "thoughts", "reasoning_recap": "thoughts", "user_editable_context": "custom_instructions",
    "model_editable_context": "custom_instructions", "system_error": "error_message",
    "execution_output": "tool_turn", "tether_browsing_display": "tool_turn", "tether_quote": "tool_turn",
}  # fmt: skip
SOUND = ("audio_asset_pointer", "real_time_user_audio_video_asset_pointer")  # its transcript stands beside it
TOOL_PARTS = ("tool_call", "tool_result")
FINISHED = ("", "stop", "unknown")
MARK = re.compile("[ \t]?\ue200([^\ue200\ue201]*)\ue201|[ \t]?【\\d+[:†][^【】]*】")  # one without an end stays
FIELD = "\ue202"


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
    slugs = [slug for one in messages if (slug := _metadata(one).get("model_slug"))]
    return slugs[-1] if slugs else record.get("default_model_slug")


def _add(dialogue: Dialogue, one: dict[str, Any]) -> None:
    role, content = str((one.get("author") or {}).get("role")), one.get("content") or {}
    if reason := _unseen(one, role, content):
        dialogue.leave_out(reason, one)
    elif role == "assistant" and _is_interrupted(one):
        dialogue.stop("interrupted", one)
    elif str(one.get("recipient") or "all").startswith("canmore"):
        _add_canvas(dialogue, one, content)
    else:
        text, marks = _text(content)
        dialogue.say(role, text, one)
        dialogue.change("citations", marks)
        dialogue.change("attachments_left_out", len(_metadata(one).get("attachments") or ()))


def _metadata(one: Mapping[str, Any]) -> Mapping[str, Any]:
    return one.get("metadata") or {}


def _unseen(one: Mapping[str, Any], role: str, content: Mapping[str, Any]) -> str:
    """Why the page shows no such message, or shows it otherwise than as a turn."""
    recipient = str(one.get("recipient") or "all")
    if reason := UNSEEN.get(content.get("content_type", "")):
        return reason
    if _metadata(one).get("is_visually_hidden_from_conversation") or one.get("weight") == 0:
        return "hidden"
    if role == "tool" or _calls_only(content) or (recipient != "all" and not recipient.startswith("canmore")):
        return "tool_turn"
    if one.get("channel") not in (None, "", "final"):
        return "preamble"
    return "hidden" if role == "system" and not _text(content)[0] else ""


def _calls_only(content: Mapping[str, Any]) -> bool:
    parts = content.get("parts") or [None]
    return all(isinstance(part, dict) and part.get("content_type") in TOOL_PARTS for part in parts)


def _is_interrupted(one: Mapping[str, Any]) -> bool:
    ended = (_metadata(one).get("finish_details") or {}).get("type", "")
    return one.get("status") == "in_progress" or ended not in FINISHED


def _add_canvas(dialogue: Dialogue, one: dict[str, Any], content: Mapping[str, Any]) -> None:
    """A document beside the chat: its text is part of the answer. Changes to it are patches, which tell no answer."""
    try:
        made = orjson.loads(str(_text(content)[0]))
    except orjson.JSONDecodeError:
        made = None
    if isinstance(made, dict) and isinstance(made.get("content"), str):
        kind = str(made.get("type", ""))
        dialogue.say("assistant", document(kind.partition("/")[2], made["content"]), one)
        dialogue.change("documents")
    else:
        dialogue.stop("canvas", one)


def _text(content: Mapping[str, Any]) -> tuple[Any, int]:
    """The text without the marks of citations, and how many there were. Parts that are no text stay as they are."""
    if content.get("content_type") == "code":
        language = str(content.get("language") or "")
        return document("text" if language == "unknown" else language, str(content.get("text", ""))), 0
    parts = [_part(part) for part in content.get("parts") or ()]
    if any(not isinstance(part, str) for part in parts):
        return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts], 0
    return MARK.subn(_meant, "\n".join(part for part in parts if part))


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("content_type")
    if kind in SOUND:
        return ""
    if isinstance(part.get("text"), str):
        return part["text"]
    return {"type": kind}


def _meant(mark: re.Match[str]) -> str:
    """What the page writes for a mark: the name of a thing or of a link; nothing for a citation."""
    kind, _, value = (mark[1] or "").partition(FIELD)
    before = mark[0][: len(mark[0]) - len(mark[0].lstrip(" \t"))]
    if kind == "url":
        return before + value.partition(FIELD)[0]
    if kind != "entity":
        return ""
    try:
        return before + str(orjson.loads(value)[1])
    except (orjson.JSONDecodeError, IndexError, TypeError, KeyError):
        return ""


FORMAT = Format("a ChatGPT export", _recognises, _translate)
