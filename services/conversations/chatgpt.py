"""ChatGPT's export as conversations of ours, with all branches and with what its page hides. Pure.

    {"id", "title", "create_time", "current_node", "mapping": {node: {"parent", "message": {…}}, …}}

`chatgpt_messages.py` reads one message. Two messages of an answer in a row stay two messages.
"""

from collections.abc import Callable, Mapping
from typing import Any

from services.conversations.chatgpt_messages import metadata, text_of, unseen
from services.conversations.drafts import MAX_MS, MAX_TEXT_CHARS, Draft, DraftMessage, cut_title, in_order
from services.conversations.edits import parse_text
from services.conversations.tables import ROLES
from services.errors import InvalidRequest
from services.wire.keys import NAME

SOURCE = "chatgpt"
CUT_OFF = ("in_progress",)


def is_chatgpt(raw: Mapping[str, Any]) -> bool:
    return isinstance(raw.get("mapping"), dict)


def parse_chatgpt(raw: Mapping[str, Any]) -> Draft:
    """Raises InvalidRequest for a conversation that is none."""
    nodes: dict[str, Any] = raw["mapping"]
    if not all(isinstance(node, Mapping) and NAME.fullmatch(name) for name, node in nodes.items()):
        raise InvalidRequest("mapping is no object of messages")
    began_ms = _ms(raw.get("create_time"), 0)
    spoken = {name for name, node in nodes.items() if isinstance(node.get("message"), Mapping)}
    spoken_at = _spoken_at(nodes, spoken)
    messages = [_message(name, nodes[name], spoken_at, began_ms) for name in nodes if name in spoken]
    if not messages:
        raise InvalidRequest("it has no messages")
    ended_ms = _ms(raw.get("update_time"), max(message.created_ms for message in messages))
    identity = str(raw.get("conversation_id") or raw.get("id") or messages[0].id)[:128]
    slug = raw.get("default_model_slug")
    return Draft(
        id=identity if NAME.fullmatch(identity) and "/" not in identity else messages[0].id,
        title=cut_title(raw.get("title")),
        created_ms=began_ms,
        updated_ms=ended_ms,
        messages=in_order(messages),
        current_id=spoken_at(raw.get("current_node")) or messages[-1].id,
        model=slug if isinstance(slug, str) and NAME.fullmatch(slug) else "",
        source=f"{SOURCE}:{identity}",
    )


def _message(name: str, node: Mapping[str, Any], spoken_at: Callable[[Any], str | None], began_ms: int) -> DraftMessage:
    one = node["message"]
    content = one.get("content") if isinstance(one.get("content"), Mapping) else {}
    role = str((one.get("author") or {}).get("role"))
    reason = unseen(one, role, content)
    slug = metadata(one).get("model_slug")
    created_ms = _ms(one.get("create_time"), began_ms)
    cut_off = role == "assistant" and one.get("status") in CUT_OFF
    return DraftMessage(
        id=name,
        parent_id=spoken_at(node.get("parent")),
        role=role if role in ROLES else "tool",
        content=parse_text(_text(content), "content", MAX_TEXT_CHARS),
        created_ms=created_ms,
        state="cancelled" if cut_off else "finished",
        model=slug if isinstance(slug, str) and NAME.fullmatch(slug) else "",
        extra={"hidden_as": reason} if reason else {},
        hidden=bool(reason),
        ended_ms=created_ms if role == "assistant" else None,
    )


def _text(content: Mapping[str, Any]) -> str:
    """The text; of parts that are no text what they are."""
    found, _ = text_of(content)
    if isinstance(found, str):
        return found or str(content.get("text") or content.get("result") or "")
    parts = [part.get("text") or f"[{part.get('type')}]" if isinstance(part, Mapping) else str(part) for part in found]
    return "\n".join(parts)


def _spoken_at(nodes: Mapping[str, Any], spoken: set[str]) -> Callable[[Any], str | None]:
    """Finds of a node itself, or the next one towards the root that has a message. Each node is looked at once."""
    known: dict[str, str | None] = {name: name for name in spoken}

    def find(name: Any) -> str | None:
        passed: list[str] = []
        while isinstance(name, str) and name in nodes and name not in known:
            known[name] = None  # until it is found: a ring of nodes has none
            passed.append(name)
            name = nodes[name].get("parent")
        found = known.get(name) if isinstance(name, str) else None
        known.update(dict.fromkeys(passed, found))
        return found

    return find


def _ms(seconds: Any, otherwise: int) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_MS / 1000:
        return otherwise
    return int(seconds * 1000)
