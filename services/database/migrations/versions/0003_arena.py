"""Battles of the arena."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "battles",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("conversation_id", sa.String, sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
        sa.Column("left_id", sa.String, sa.ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
        sa.Column("right_id", sa.String, sa.ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
        sa.Column("left_model", sa.String, nullable=False),
        sa.Column("right_model", sa.String, nullable=False),
        sa.Column("left_parameters", sa.JSON, nullable=False),
        sa.Column("right_parameters", sa.JSON, nullable=False),
        sa.Column("vote", sa.String),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("voted_ms", sa.BigInteger),
        sa.CheckConstraint("vote IN ('left', 'right', 'tie', 'both_bad')", name="vote"),
    )
    op.create_index("ix_battles_owner", "battles", ["owner"])
    op.create_index("ix_battles_conversation_id", "battles", ["conversation_id"])
