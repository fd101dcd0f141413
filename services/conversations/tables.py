"""The tables of conversations. A message knows its parent only; children are found, never stored."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from services.database.tables import Table

ROLES = ("system", "user", "assistant", "tool")
STATES = ("unsent", "open", "finished", "failed", "cancelled")
"""`unsent`: the queue has not accepted it (yet); `open`: the journal is the truth; the others: this row is."""


class Words(TypeDecorator[str]):
    """Text that people and models wrote. PostgreSQL cannot hold U+0000; it becomes U+FFFD in both databases."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value and storable(value)


def storable(text: str) -> str:
    """A text as the database gives it back."""
    return text.replace("\0", "\ufffd")


class ConversationRow(Table):
    """One conversation of one owner. `current_id` is the message at the end of the branch that was looked at last."""

    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    title: Mapped[str] = mapped_column(Words)
    titled_by: Mapped[str] = mapped_column(default="first_words")  # or `user`, `model`
    model: Mapped[str] = mapped_column(default="")
    system: Mapped[str] = mapped_column(Words, default="")
    settings: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)  # sampling options, thinking
    folder: Mapped[str] = mapped_column(Words, default="")
    pinned: Mapped[bool] = mapped_column(default=False)
    source: Mapped[str] = mapped_column(default="")  # where it was imported from, with its id there
    shared_as: Mapped[str | None] = mapped_column(unique=True, default=None)  # the secret of its read-only link
    current_id: Mapped[str | None] = mapped_column(default=None)
    num_bytes: Mapped[int] = mapped_column(BigInteger, default=0)  # of it and its messages; triggers keep it
    created_ms: Mapped[int] = mapped_column(BigInteger)
    updated_ms: Mapped[int] = mapped_column(BigInteger)
    deleted_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)

    __table_args__ = (
        CheckConstraint("titled_by IN ('first_words', 'user', 'model')", name="titled_by"),
        Index("ix_conversations_owner", "owner", "updated_ms"),
        Index("ix_conversations_bytes", "owner", "deleted_ms", "num_bytes"),
    )


class MessageRow(Table):
    """One message. An answer's id is the id of its request."""

    __tablename__ = "messages"

    id: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    parent_id: Mapped[str | None] = mapped_column(index=True, default=None)
    place: Mapped[int]  # of all messages of its conversation: in the order in which they came, from 0
    role: Mapped[str]
    content: Mapped[str] = mapped_column(Words, default="")
    reasoning: Mapped[str] = mapped_column(Words, default="")
    state: Mapped[str] = mapped_column(default="finished")
    code: Mapped[str] = mapped_column(default="")  # why it ended: `stop`, `length`, an error's code
    error: Mapped[str] = mapped_column(Words, default="")  # the words of a failure
    model: Mapped[str] = mapped_column(default="")
    asked_by: Mapped[str] = mapped_column(default="")  # of an answer: whose request it is, also under a later owner
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)  # what was asked for: sampling, thinking
    usage: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    extra: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)  # attachments' names, calls of tools, a source
    hidden: Mapped[bool] = mapped_column(default=False)  # of an import: the other program did not show it
    created_ms: Mapped[int] = mapped_column(BigInteger)
    ended_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    missing_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)  # open, and Redis does not know it: since

    __table_args__ = (
        UniqueConstraint("conversation_id", "id"),
        ForeignKeyConstraint(["conversation_id", "parent_id"], ["messages.conversation_id", "messages.id"]),
        CheckConstraint(f"role IN {ROLES!r}", name="role"),
        CheckConstraint(f"state IN {STATES!r}", name="state"),
    )


class FeedbackRow(Table):
    """One judgement of an answer; the log only grows, the newest of an author is what holds."""

    __tablename__ = "feedback"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    author: Mapped[str]
    verdict: Mapped[str]  # `up`, `down`, `flag`, `correction`, or `none` to take the last one back
    reason: Mapped[str] = mapped_column(default="")
    better: Mapped[str] = mapped_column(default="")  # the answer that the reader would have liked
    model: Mapped[str] = mapped_column(default="")
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (CheckConstraint("verdict IN ('up', 'down', 'flag', 'correction', 'none')", name="verdict"),)
