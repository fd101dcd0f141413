"""Conversations as files: ours, which the import reads back without a loss, Markdown, and OpenAI's messages. Pure."""

from collections.abc import Iterator
from typing import Any

import orjson

from services.conversations.shapes import Tree
from services.conversations.tables import MessageRow

FORMAT = "chatserver.conversations"
VERSION = 1
MIMETYPES = {"json": "application/json", "markdown": "text/markdown", "openai": "application/jsonl"}
ENDINGS = {"json": "json", "markdown": "md", "openai": "jsonl"}
NOT_KEPT = ("running", "shared_as")  # of this installation alone
NAMES = {"user": "You", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def exported(trees: Iterator[Tree], kind: str) -> Iterator[bytes]:
    """The pieces of a file. `kind` is a key of MIMETYPES."""
    if kind == "json":
        yield from _json(trees)
    for number, tree in enumerate(trees):
        if kind == "markdown":
            yield (("\n\n" if number else "") + markdown(tree)).encode()
        else:
            yield orjson.dumps({"messages": openai_messages(tree)}) + b"\n"


def ours(tree: Tree) -> dict[str, Any]:
    """All that there is of a conversation, except whose it is and its link."""
    kept = {name: value for name, value in tree.as_dict().items() if name not in NOT_KEPT}
    return {**kept, "titled_by": tree.conversation.titled_by, "source": tree.conversation.source}


def openai_messages(tree: Tree) -> list[dict[str, str]]:
    """The branch that was looked at last, as OpenAI's API and its fine-tuning files have it."""
    said = [message for message in tree.branch() if message.content.strip() and not message.hidden]
    head = [{"role": "system", "content": tree.conversation.system}] if tree.conversation.system.strip() else []
    return [*head, *({"role": message.role, "content": message.content} for message in said)]


def markdown(tree: Tree) -> str:
    """The branch that was looked at last, to be read."""
    parts = [f"# {tree.conversation.title}"]
    if tree.conversation.system.strip():
        parts.append(f"## System\n\n{tree.conversation.system.strip()}")
    parts += [_section(message) for message in tree.branch() if not message.hidden]
    return "\n\n".join(parts) + "\n"


def _json(trees: Iterator[Tree]) -> Iterator[bytes]:
    yield b'{"format":%b,"version":%d,"conversations":[' % (orjson.dumps(FORMAT), VERSION)
    for number, tree in enumerate(trees):
        yield (b",\n" if number else b"\n") + orjson.dumps(ours(tree))
    yield b"\n]}\n"


def _section(message: MessageRow) -> str:
    name = NAMES[message.role] + (f" ({message.model})" if message.model else "")
    ended = f"\n\n*{message.state}: {message.error or message.code}*" if message.state != "finished" else ""
    return f"## {name}\n\n{message.content.strip()}{ended}"
