"""Conversations, their messages, what people thought of them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("titled_by", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("system", sa.String, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("folder", sa.String, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("shared_as", sa.String, unique=True),
        sa.Column("current_id", sa.String),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("deleted_ms", sa.BigInteger),
        sa.CheckConstraint("titled_by IN ('first_words', 'user', 'model')", name="titled_by"),
    )
    op.create_index("ix_conversations_owner", "conversations", ["owner", "updated_ms"])
    deleted = sa.text("deleted_ms IS NOT NULL")  # looked for as often, to be purged
    op.create_index(
        "ix_conversations_deleted", "conversations", ["deleted_ms"], sqlite_where=deleted, postgresql_where=deleted
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("conversation_id", sa.String, sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
        sa.Column("parent_id", sa.String),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("content", sa.String, nullable=False),
        sa.Column("reasoning", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("error", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("asked_by", sa.String, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("usage", sa.JSON),
        sa.Column("extra", sa.JSON, nullable=False),
        sa.Column("hidden", sa.Boolean, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("missing_ms", sa.BigInteger),
        sa.UniqueConstraint("conversation_id", "id"),
        sa.ForeignKeyConstraint(["conversation_id", "parent_id"], ["messages.conversation_id", "messages.id"]),
        sa.CheckConstraint("role IN ('system', 'user', 'assistant', 'tool')", name="role"),
        sa.CheckConstraint("state IN ('unsent', 'open', 'finished', 'failed', 'cancelled')", name="state"),
    )
    op.create_index("ix_messages_conversation_id", "messages", ["conversation_id"])
    op.create_index("ix_messages_parent_id", "messages", ["parent_id"])
    open_rows = sa.text("state IN ('unsent', 'open')")  # the archivist looks for them every second
    op.create_index("ix_messages_unfinished", "messages", ["state"], sqlite_where=open_rows, postgresql_where=open_rows)
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("message_id", sa.String, sa.ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("better", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint("verdict IN ('up', 'down', 'flag', 'correction', 'none')", name="verdict"),
    )
    op.create_index("ix_feedback_message_id", "feedback", ["message_id"])
