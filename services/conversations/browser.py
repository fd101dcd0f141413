"""What a browser of an earlier build keeps of a conversation (`src/chat/conversations.ts` then), as one of ours. Pure.

Its messages are one list without branches. Those that were on their way are `open`: their text is in the journal.
"""

from collections.abc import Callable, Mapping
from typing import Any

from services.conversations.drafts import MAX_TEXT_CHARS, Draft, DraftMessage, cut_title
from services.conversations.edits import MAX_SYSTEM_CHARS, parse_id, parse_object, parse_text
from services.errors import InvalidRequest
from services.wire.keys import NAME

SOURCE = "browser"
ENDED = ("finished", "failed", "cancelled")
INTERRUPTED = "its browser did not see the end of this answer, and the server no longer has it"


def parse_browser(raw: object, owner: str, is_known: Callable[[str], bool]) -> Draft:
    """`is_known(rid)`: the journal has this request of the owner. Raises InvalidRequest."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("messages"), list):
        raise InvalidRequest("a conversation must be an object with messages")
    updated_ms = _time(raw.get("updated_ms"), 0)
    messages: list[DraftMessage] = []
    for each in raw["messages"]:
        parent_id = messages[-1].id if messages else None
        messages.append(_message(each, parent_id, owner, is_known, updated_ms))
    if len({message.id for message in messages}) < len(messages):
        raise InvalidRequest("two of its messages have the same id")
    cid = parse_id(raw.get("id"))
    return Draft(
        id=cid,
        title=cut_title(raw.get("title")),
        created_ms=messages[0].created_ms if messages else updated_ms,
        updated_ms=updated_ms,
        messages=tuple(messages),
        current_id=messages[-1].id if messages else None,
        model=_name(raw.get("model")),
        system=parse_text(raw.get("system") or "", "system", MAX_SYSTEM_CHARS),
        source=f"{SOURCE}:{cid}",
    )


def _message(
    raw: object, parent_id: str | None, owner: str, is_known: Callable[[str], bool], otherwise_ms: int
) -> DraftMessage:
    if not isinstance(raw, Mapping) or raw.get("role") not in ("user", "assistant"):
        raise InvalidRequest("a message must be an object of the role user or assistant")
    error: Mapping[str, Any] = raw["error"] if isinstance(raw.get("error"), Mapping) else {}
    said = DraftMessage(
        id=parse_id(raw.get("id")),
        parent_id=parent_id,
        role=str(raw["role"]),
        content=parse_text(raw.get("content") or "", "content", MAX_TEXT_CHARS),
        reasoning=parse_text(raw.get("reasoning") or "", "reasoning", MAX_TEXT_CHARS),
        created_ms=_time(raw.get("created_ms"), otherwise_ms),
        model=_name(raw.get("model")),
        code=parse_text(raw.get("code") or error.get("code") or "", "code", 100),
        error=parse_text(error.get("message") or "", "error", MAX_TEXT_CHARS),
        usage=parse_object(raw.get("usage"), "usage") or None,
    )
    return said if said.role == "user" else _answer(said, raw, owner, is_known)


def _answer(said: DraftMessage, raw: Mapping[str, Any], owner: str, is_known: Callable[[str], bool]) -> DraftMessage:
    if raw.get("state") in ENDED:
        return _changed(said, state=str(raw["state"]), ended_ms=said.created_ms)
    if is_known(said.id):
        return _changed(said, state="open", content="", reasoning="", asked_by=owner)
    return _changed(said, state="failed", code="lost", error=INTERRUPTED, ended_ms=said.created_ms)


def _changed(said: DraftMessage, **fields: Any) -> DraftMessage:
    return DraftMessage(**{**vars(said), **fields})


def _name(raw: object) -> str:
    return raw if isinstance(raw, str) and NAME.fullmatch(raw) else ""


def _time(raw: object, otherwise: int) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw < 10**14:
        return otherwise
    return int(raw)
