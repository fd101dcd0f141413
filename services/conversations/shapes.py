"""Conversations and messages as JSON: what HTTP answers and what an export holds. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow

SUMMARY = ("id", "title", "model", "folder", "pinned", "created_ms", "updated_ms")
MESSAGE = (
    "id", "parent_id", "role", "content", "reasoning", "state", "code", "error", "model", "parameters", "usage",
    "extra", "hidden", "created_ms", "ended_ms",
)  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """A conversation with all its branches. `messages` are in the order in which they came."""

    conversation: ConversationRow
    messages: list[MessageRow]
    feedback: Mapping[str, FeedbackRow]

    @property
    def running(self) -> bool:
        return any(message.state == "open" for message in self.messages)

    def branch(self) -> list[MessageRow]:
        """From the root to the message that was looked at last."""
        return path_to(self.messages, self.conversation.current_id)

    def as_dict(self) -> dict[str, Any]:
        row = self.conversation
        return {
            **summary(row, running=self.running),
            "system": row.system,
            "settings": row.settings,
            "current_id": row.current_id,
            "shared_as": row.shared_as,
            "messages": [message(each, self.feedback.get(each.id)) for each in self.messages],
        }


def path_to(messages: Iterable[MessageRow], last: str | None) -> list[MessageRow]:
    """The messages from the root to `last`; none for None."""
    known = {each.id: each for each in messages}
    path: list[MessageRow] = []
    while last is not None:
        path.append(known[last])
        last = known[last].parent_id
    return path[::-1]


def summary(row: ConversationRow, *, running: bool) -> dict[str, Any]:
    return {**{name: getattr(row, name) for name in SUMMARY}, "running": running}


def message(row: MessageRow, feedback: FeedbackRow | None = None) -> dict[str, Any]:
    return {**{name: getattr(row, name) for name in MESSAGE}, "feedback": feedback and judgement(feedback)}


def judgement(row: FeedbackRow) -> dict[str, Any] | None:
    """The newest judgement of an answer; None when it was taken back."""
    if row.verdict == "none":
        return None
    return {"verdict": row.verdict, "reason": row.reason, "better": row.better}
