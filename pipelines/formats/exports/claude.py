"""Claude: the records of `conversations.json` of claude.ai. `foreign.py` calls it.

    {"uuid", "name", "chat_messages": [{"uuid", "sender", "text", "content": [{"type", …}], "attachments", "files"}, …]}

What a person pasted as a file is part of the question. A document that an answer made (an artifact) is part of it.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pipelines.formats.exports.dialogue import Dialogue, every_branch
from pipelines.formats.translation import Format, Record, Translation, objects, scalars
from services.conversations.documents import document

ROLES = {"human": "user"}
UNSEEN = {"thinking": "thoughts", "redacted_thinking": "thoughts", "tool_use": "tool_turn", "tool_result": "tool_turn"}
PLACEHOLDER = re.compile(r"```\s*This block is not supported on your current device yet\.\s*```")
CODE = "application/vnd.ant.code"
KINDS = {"text/html": "html", "image/svg+xml": "svg", "application/vnd.ant.react": "jsx",
         "application/vnd.ant.mermaid": "mermaid"}  # fmt: skip
ROOT = "00000000-0000-4000-8000-000000000000"


def _translate(record: Record, all_branches: bool) -> Iterator[Translation]:
    messages = objects(record["chat_messages"], "chat_messages")
    names = [str(one.get("uuid") or number) for number, one in enumerate(messages)]
    if len(set(names)) < len(names) or not any(one.get("parent_message_uuid") for one in messages):
        names = [str(number) for number in range(len(messages))]
        parents: dict[str, str | None] = dict(zip(names, [None, *names], strict=False))
    else:
        given = (one.get("parent_message_uuid") for one in messages)
        parents = {name: None if parent == ROOT else parent for name, parent in zip(names, given, strict=True)}
    by_name = dict(zip(names, messages, strict=True))
    current = record.get("current_leaf_message_uuid") or (names[-1] if names else None)
    yield from every_branch(by_name, parents, current, all_branches, partial(_branch, record))


def _branch(record: Record, messages: list[dict[str, Any]], name: str) -> Translation:
    dialogue = Dialogue()
    for one in messages:
        _add(dialogue, one)
    about = {"id": record.get("uuid"), "title": record.get("name"), "model": record.get("model")}
    return dialogue.ended({**about, **scalars(record, "uuid", "name", "model")}, name)


def _add(dialogue: Dialogue, one: dict[str, Any]) -> None:
    blocks = [block for block in one.get("content") or () if isinstance(block, dict)]
    for block in blocks:
        if (reason := UNSEEN.get(block.get("type", ""))) and not _given(block):
            dialogue.leave_out(reason, block)
    if any(_is_patch(block) for block in blocks):
        dialogue.stop("canvas", one)
    elif one.get("stop_reason") in ("max_tokens", "user_canceled") or one.get("truncated") is True:
        dialogue.stop("interrupted", one)
    else:
        role = str(one.get("sender"))
        dialogue.say(ROLES.get(role, role), _text(one, blocks), one)
        dialogue.change("documents", sum(bool(_artifact(block)) for block in blocks))
        dialogue.change("attachments_left_out", len(one.get("files") or ()))


def _text(one: Mapping[str, Any], blocks: list[dict[str, Any]]) -> str:
    pasted = [str(file.get("extracted_content") or "") for file in one.get("attachments") or ()]
    said = _joined(blocks) or PLACEHOLDER.sub("", str(one.get("text") or "")).strip()
    return "\n\n".join(text for text in (*pasted, said) if text.strip())


def _joined(blocks: list[dict[str, Any]]) -> str:
    """Claude cuts a text where it cites: blocks side by side are one text. Those around other work are two."""
    text, apart = "", False
    for block in blocks:
        said = block.get("text") if block.get("type", "text") == "text" else _artifact(block)
        if not isinstance(said, str) or not said:
            apart = True
            continue
        apart = apart or block.get("type") == "tool_use"
        text += "\n\n" + said if text and apart else said
        apart = block.get("type") == "tool_use"
    return text


def _given(block: Mapping[str, Any]) -> Mapping[str, Any]:
    given = block.get("input") if block.get("type") == "tool_use" and block.get("name") == "artifacts" else None
    return given if isinstance(given, dict) else {}


def _artifact(block: Mapping[str, Any]) -> str:
    """The document that this block writes whole."""
    given = _given(block)
    if given.get("command") not in ("create", "rewrite") or not isinstance(given.get("content"), str):
        return ""
    kind = str(given.get("type", ""))
    return document(str(given.get("language") or "text") if kind == CODE else KINDS.get(kind, ""), given["content"])


def _is_patch(block: Mapping[str, Any]) -> bool:
    return _given(block).get("command") == "update"


FORMAT = Format("a Claude export", lambda record: isinstance(record.get("chat_messages"), list), _translate)
