"""What people think of answers: up, down, a flag with a reason, or a better answer that they typed.

The log only grows. Of one author's judgements of one message the newest holds; `none` takes the one before it back.
The routes add to the log, and `services/judgements` makes training data of what holds.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow
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
    value = raw.get(field) or ""
    if not isinstance(value, str) or len(value) > max_chars:
        raise InvalidRequest(f"{field} must be a text of at most {max_chars:,} characters", field=field)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"{field} holds half of a surrogate pair, which is not valid Unicode", field=field
        ) from None
    return "" if not value.strip() else value.replace("\0", "")  # PostgreSQL stores no NUL


class Feedback:
    """The log of judgements. Every method blocks: call it in a thread."""

    def __init__(self, database: Database, clock_ms: Callable[[], int]) -> None:
        self._database = database
        self._clock_ms = clock_ms

    def add(self, author: str, message_id: str, judgement: Judgement) -> Judgement | None:
        """Add to the log; returns what holds now. Raises NotFound for what is not an answer of the author's.

        Raises Conflict for an answer that has not ended.
        """
        with self._database.write() as session:
            message = _answer(session, author, message_id)
            session.add(
                FeedbackRow(
                    message_id=message.id,
                    author=author,
                    verdict=judgement.verdict,
                    reason=judgement.reason,
                    better=judgement.better,
                    model=message.model,
                    parameters=message.parameters,
                    created_ms=self._clock_ms(),
                )
            )
        return None if judgement.verdict == "none" else judgement


def holding(session: Session, author: str, message_ids: Collection[str]) -> dict[str, Judgement]:
    """Message → what its author's newest judgement is; nothing for a message whose judgement was taken back."""
    rows = session.scalars(
        select(FeedbackRow)
        .where(FeedbackRow.author == author, FeedbackRow.message_id.in_(message_ids))
        .order_by(FeedbackRow.id)
    )
    newest = {row.message_id: Judgement(row.verdict, row.reason, row.better) for row in rows}
    return {message_id: each for message_id, each in newest.items() if each.verdict != "none"}


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
