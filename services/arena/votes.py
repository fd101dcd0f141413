"""The votes of all users: games for the leaderboard, and lines for a file. Who voted stands in neither."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.arena.battles import Battle, battle_of
from services.arena.contestants import Contestant
from services.arena.leaderboard import Game
from services.arena.tables import BattleRow
from services.conversations.tables import ConversationRow

Tally = tuple[int, int | None]


def tally(session: Session) -> Tally:
    """How many votes there are, and when the last one came: another vote, or one that has gone, changes it."""
    number, last_ms = session.execute(
        select(func.count(), func.max(BattleRow.voted_ms)).where(BattleRow.vote.is_not(None))
    ).one()
    return int(number), last_ms


def games(session: Session) -> list[Game]:
    """Every vote, the oldest first. A deleted conversation's vote counts until the conversation is gone."""
    columns = (BattleRow.left_model, BattleRow.left_parameters, BattleRow.right_model, BattleRow.right_parameters)
    rows = session.execute(
        select(BattleRow.vote, *columns).where(BattleRow.vote.is_not(None)).order_by(BattleRow.voted_ms)
    )
    return [Game(Contestant(a, pa).name, Contestant(b, pb).name, vote) for vote, a, pa, b, pb in rows]


def voted(session: Session) -> Iterator[tuple[BattleRow, Battle]]:
    """The battles with a vote whose conversations are not deleted, the oldest vote first."""
    rows = session.scalars(
        select(BattleRow)
        .join(ConversationRow, ConversationRow.id == BattleRow.conversation_id)
        .where(BattleRow.vote.is_not(None), ConversationRow.deleted_ms.is_(None))
        .order_by(BattleRow.voted_ms, BattleRow.id)
    ).all()
    return ((row, battle_of(session, row)) for row in rows)


def lines(session: Session) -> Iterator[dict[str, Any]]:
    """`{battle, conversation, voted_ms, vote, left, right, rounds}` of every such battle."""
    for row, battle in voted(session):
        yield {
            "battle": battle.id,
            "conversation": battle.conversation_id,
            "created_ms": row.created_ms,
            "voted_ms": row.voted_ms,
            "vote": battle.vote,
            "left": {"model": battle.left.model, "parameters": dict(battle.left.parameters)},
            "right": {"model": battle.right.model, "parameters": dict(battle.right.parameters)},
            "rounds": [
                {"question": each.question, "left": each.left.content, "right": each.right.content}
                for each in battle.rounds
            ],
        }
