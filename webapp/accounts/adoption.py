"""Gives a user what their browser owned before they signed in: its conversations, its judgements, its battles."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from services.arena.tables import BattleRow
from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow
from services.database.database import Database
from services.errors import Conflict


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

        Raises Conflict while an answer runs: its request belongs to who asked, so the user could neither read on nor
        cancel it.
        A question that the queue has not accepted is asked again by the user, so its answer is the user's too.
        """
        num = self.num_conversations(former)
        with self._database.write() as session:
            if _is_answered(session, former):
                raise Conflict("an answer is still being written in these conversations; try again when it has ended")
            for column in (ConversationRow.owner, BattleRow.owner, FeedbackRow.author):
                session.execute(update(column.class_).where(column == former).values({column.key: user}))
            unsent = (MessageRow.asked_by == former, MessageRow.state == "unsent")
            session.execute(update(MessageRow).where(*unsent).values(asked_by=user))
        return num


def _is_answered(session: Session, owner: str) -> bool:
    """Whether an answer in the owner's conversations runs, or has ended and is not archived yet."""
    running = select(MessageRow.id).join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
    running = running.where(ConversationRow.owner == owner, MessageRow.state == "open")
    return session.scalars(running.limit(1)).first() is not None
