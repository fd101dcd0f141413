"""One message of ChatGPT's export: whether its page shows it, and its text. Pure.

The import of conversations (`chatgpt.py`) and the cleaning of exports (`pipelines/formats/exports/chatgpt.py`) call it.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from services.conversations.documents import document

UNSEEN = {
    "thoughts": "thoughts", "reasoning_recap": "thoughts", "user_editable_context": "custom_instructions",
    "model_editable_context": "custom_instructions", "system_error": "error_message",
    "execution_output": "tool_turn", "tether_browsing_display": "tool_turn", "tether_quote": "tool_turn",
}  # fmt: skip
SOUND = ("audio_asset_pointer", "real_time_user_audio_video_asset_pointer")  # its transcript stands beside it
TOOL_PARTS = ("tool_call", "tool_result")
MARK = re.compile("[ \t]?\ue200([^\ue200\ue201]*)\ue201|[ \t]?【\\d+[:†][^【】]*】")  # one without an end stays
FIELD = "\ue202"


def metadata(one: Mapping[str, Any]) -> Mapping[str, Any]:
    return one.get("metadata") or {}


def unseen(one: Mapping[str, Any], role: str, content: Mapping[str, Any]) -> str:
    """Why the page shows no such message, or shows it otherwise than as a turn."""
    recipient = str(one.get("recipient") or "all")
    if reason := UNSEEN.get(content.get("content_type", "")):
        return reason
    if metadata(one).get("is_visually_hidden_from_conversation") or one.get("weight") == 0:
        return "hidden"
    if role == "tool" or _calls_only(content) or (recipient != "all" and not recipient.startswith("canmore")):
        return "tool_turn"
    if one.get("channel") not in (None, "", "final"):
        return "preamble"
    return "hidden" if role == "system" and not text_of(content)[0] else ""


def _calls_only(content: Mapping[str, Any]) -> bool:
    parts = content.get("parts") or [None]
    return all(isinstance(part, dict) and part.get("content_type") in TOOL_PARTS for part in parts)


def text_of(content: Mapping[str, Any]) -> tuple[Any, int]:
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
