"""Gives a user what their browser owned before they signed in: its conversations, its judgements, its battles."""

from sqlalchemy import func, select, update

from services.arena.tables import BattleRow
from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow
from services.database.database import Database


class Adoption:
    """Moves rows from one owner to another."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def num_conversations(self, former: str) -> int:
        """How many conversations there are to take over."""
        of_former = (ConversationRow.owner == former, ConversationRow.deleted_ms.is_(None))
        with self._database.read() as session:
            return session.scalar(select(func.count()).select_from(ConversationRow).where(*of_former)) or 0

    def adopt(self, former: str, user: str) -> int:
        """Make the user the owner; returns how many conversations that concerned. Again: none.

        A question that the queue has not accepted is asked again by the user, so its answer is the user's too.
        """
        num = self.num_conversations(former)
        with self._database.write() as session:
            for column in (ConversationRow.owner, BattleRow.owner, FeedbackRow.author):
                session.execute(update(column.class_).where(column == former).values({column.key: user}))
            unsent = (MessageRow.asked_by == former, MessageRow.state == "unsent")
            session.execute(update(MessageRow).where(*unsent).values(asked_by=user))
        return num
