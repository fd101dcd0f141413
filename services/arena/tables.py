"""The tables of the arena."""

from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from services.database.tables import Table

VOTES = ("left", "right", "tie", "both_bad")


class BattleRow(Table):
    """Two answers to one question, side by side; blind until `vote` is there, and it is given once."""

    __tablename__ = "battles"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    left_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    right_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    left_model: Mapped[str]
    right_model: Mapped[str]
    left_parameters: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    right_parameters: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    vote: Mapped[str | None] = mapped_column(default=None)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    voted_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)

    __table_args__ = (CheckConstraint(f"vote IN {VOTES!r}", name="vote"),)
