"""What people think of answers: up, down, a flag with a reason, or a better answer that they typed.

The log only grows. Of one author's judgements of one message the newest holds; `none` takes the one before it back.
The routes add to the log, and `services/judgements` makes training data of what holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.conversations.conversations import Check
from services.conversations.edits import parse_text
from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow, storable
from services.database.clock import now_ms
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, NotFound, shown

VERDICTS = ("up", "down", "flag", "correction", "none")
WITH_BETTER = ("down", "flag", "correction")
MAX_REASON_CHARS = 2_000


@dataclass(frozen=True)
class Judgement:
    """One verdict. `better` is the answer that the reader would have liked."""

    verdict: str
    reason: str = ""
    better: str = ""


def parse_judgement(raw: object, *, max_chars: int) -> Judgement:
    """A judgement from untrusted JSON `{verdict, reason?, better?}`. Raises InvalidRequest naming the field."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"a judgement must be an object with a verdict, not {type(raw).__name__}")
    verdict = raw.get("verdict")
    if verdict not in VERDICTS:
        raise InvalidRequest(f"verdict {shown(verdict)} is not one of {', '.join(VERDICTS)}", field="verdict")
    better = _text(raw, "better", max_chars)
    if verdict == "correction" and not better:
        raise InvalidRequest("a correction needs the better answer in `better`", field="better")
    if better and verdict not in WITH_BETTER:
        raise InvalidRequest(f"verdict {verdict} takes no better answer; use {', '.join(WITH_BETTER)}", field="better")
    return Judgement(verdict, _text(raw, "reason", MAX_REASON_CHARS), better)


def _text(raw: Mapping[str, Any], field: str, max_chars: int) -> str:
    text = parse_text(raw.get(field) or "", field, max_chars)
    return storable(text) if text.strip() else ""


class Feedback:
    """The log of judgements. Every method blocks: call it in a thread."""

    def __init__(self, database: Database, check: Check = lambda session, user, num_bytes: None) -> None:
        self._database = database
        self._check = check

    def add(self, author: str, message_id: str, judgement: Judgement) -> Judgement | None:
        """Add to the log; returns what holds now. Raises NotFound for what is not an answer of the author's.

        Raises Conflict for an answer that has not ended, and as `StoredBytes.check`.
        """
        with self._database.write() as session:
            message = _answer(session, author, message_id)
            self._check(session, author, len(judgement.reason.encode()) + len(judgement.better.encode()))
            session.add(
                FeedbackRow(
                    message_id=message.id,
                    author=author,
                    verdict=judgement.verdict,
                    reason=judgement.reason,
                    better=judgement.better,
                    model=message.model,
                    parameters=message.parameters,
                    created_ms=now_ms(),
                )
            )
        return None if judgement.verdict == "none" else judgement


def newest(session: Session, conversation_id: str) -> dict[str, Judgement]:
    """Message → the judgement that holds; nothing for a message whose judgement was taken back.

    Only an owner judges a conversation, so the newest entry is that of its author.
    """
    rows = session.scalars(
        select(FeedbackRow)
        .join(MessageRow, MessageRow.id == FeedbackRow.message_id)
        .where(MessageRow.conversation_id == conversation_id)
        .order_by(FeedbackRow.id)
    )
    found = {row.message_id: Judgement(row.verdict, row.reason, row.better) for row in rows}
    return {message_id: each for message_id, each in found.items() if each.verdict != "none"}


def _answer(session: Session, author: str, message_id: str) -> MessageRow:
    found = session.execute(
        select(MessageRow, ConversationRow)
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .where(MessageRow.id == message_id, ConversationRow.owner == author, ConversationRow.deleted_ms.is_(None))
    ).first()
    if found is None or found[0].role != "assistant":
        raise NotFound(f"you have no answer {message_id!r:.80}; open the conversation again")
    if found[0].state in ("unsent", "open"):
        raise Conflict("the answer is still being written; judge it when it has ended")
    message: MessageRow = found[0]
    return message
