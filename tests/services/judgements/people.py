"""Conversations that people judged, as rows."""

from typing import Any

from services.arena.battles import Battle, Battles
from services.arena.contestants import Contestant
from services.conversations.asking import append
from services.conversations.conversations import new_conversation
from services.conversations.feedback import Feedback, Judgement
from services.conversations.prompt import PromptLimits
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from tests.services.arena.database import finish


class People:
    """Asks, answers and judges without a queue."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.battles = Battles(database, PromptLimits(10_000, 100_000))

    def said(self, cid: str, mid: str, role: str, content: str, parent: str | None = None, **fields: Any) -> None:
        """One message, in a conversation that is made when it is new."""
        with self.database.write() as session:
            conversation = session.get(ConversationRow, cid) or new_conversation(session, "ada", cid)
            session.flush()
            fields = {"code": "stop" if role == "assistant" else "", "model": "tiny", **fields}
            append(session, conversation, id=mid, role=role, content=content, parent_id=parent, **fields)

    def judge(self, mid: str, verdict: str, **more: str) -> None:
        Feedback(self.database).add("ada", mid, Judgement(verdict, **more))

    def battle(self, bid: str, question: str, left: str, right: str, vote: str | None) -> Battle:
        battle = self.battles.start("ada", bid, question, (Contestant("one"), Contestant("two")))
        for answer, text in ((battle.rounds[0].left, left), (battle.rounds[0].right, right)):
            finish(self.database, answer.id, text)
        if vote is not None:
            battle = self.battles.vote("ada", bid, vote)
        return battle

    def change(self, mid: str, **values: Any) -> None:
        with self.database.write() as session:
            row = session.get_one(MessageRow, mid)
            for name, value in values.items():
                setattr(row, name, value)
