"""Battles: one question, two answers, one vote; more questions may follow before it.

Until the vote a battle's conversation belongs to nobody (`arena:` and the user's id is no user's), so no other route
shows who answered. The vote gives it to the user, among the other conversations.

    battles.start(user, battle_id, question, (left, right))   # rows first: `unsent`
    battles.requests(user, battle_id)                         # for the queue
    battles.sent(user, battle_id)                             # it has both: `open`; the archivist closes them
    battles.vote(user, battle_id, "left")
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.arena.blind import answer_id
from services.arena.contestants import Contestant
from services.arena.tables import VOTES, BattleRow
from services.conversations.asking import append
from services.conversations.conversations import hidden, new_conversation, path_of
from services.conversations.prompt import PromptLimits, prompt_for
from services.conversations.stored import StoredBytes
from services.conversations.tables import ConversationRow, MessageRow, storable
from services.conversations.titles import title_from
from services.database.clock import now_ms
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, NotFound, shown
from services.wire.messages import ChatRequest
from services.wire.parsing import parse_request

SIDES = ("left", "right")
MAX_QUESTIONS = 20
FOLDER = "Arena"


@dataclass(frozen=True)
class Answer:
    """One side's answer to one question."""

    id: str
    state: str
    content: str
    reasoning: str
    code: str


@dataclass(frozen=True)
class Round:
    """A question and both answers."""

    question: str
    left: Answer
    right: Answer


@dataclass(frozen=True)
class Battle:
    """A battle as the server knows it; `shown` is what its user may see."""

    id: str
    conversation_id: str
    left: Contestant
    right: Contestant
    rounds: tuple[Round, ...]
    vote: str | None

    def shown(self) -> dict[str, Any]:
        """Without the names, and all that tells them, until the vote."""
        rounds = [
            {"question": each.question, "left": vars(each.left), "right": vars(each.right)} for each in self.rounds
        ]
        blind = {"id": self.id, "vote": self.vote, "rounds": rounds}
        if self.vote is None:
            return blind
        sides = {side: _described(getattr(self, side)) for side in SIDES}
        return {**blind, **sides, "conversation_id": self.conversation_id}

    def contestant(self, side: str) -> Contestant:
        return self.left if side == "left" else self.right


def _described(contestant: Contestant) -> dict[str, Any]:
    return {"name": contestant.name, "model": contestant.model, "parameters": dict(contestant.parameters)}


class Battles:
    """The battles of an installation. Every method blocks: call it in a thread."""

    def __init__(self, database: Database, limits: PromptLimits, stored: StoredBytes | None = None) -> None:
        self._database = database
        self._limits = limits
        self._stored_bytes = stored

    # -- asking --------------------------------------------------------------------------------------------------

    def start(self, user: str, battle_id: str, question: str, sides: tuple[Contestant, Contestant]) -> Battle:
        """A battle with its first question. One that exists stays as it was drawn; another question is a Conflict.

        Raises StorageFull where the user has no room for it.
        """
        with _free_ids(), self._database.write() as session:
            if session.get(BattleRow, battle_id) is None:
                self._check_room(session, user, question)
                self._add(session, user, battle_id, question, sides)
            battle = _read(session, _row(session, user, battle_id))
        return _asked(battle, 0, question)

    def ask(self, user: str, battle_id: str, number: int, question: str) -> Battle:
        """One more question to both. The same again changes nothing. Raises Conflict when it is not its turn."""
        with _free_ids(), self._database.write() as session:
            row = _row(session, user, battle_id, lock=True)
            battle = _read(session, row)
            if number >= len(battle.rounds):
                _check_next(battle, number)
                self._check_room(session, user, question)
                _add_round(session, row, number, question, (row.left_id, row.right_id))
                session.flush()
                battle = _read(session, row)
        return _asked(battle, number, question)

    def sent(self, user: str, battle_id: str) -> None:
        """The queue has accepted both answers to the last question."""
        with self._database.write() as session:
            row = _row(session, user, battle_id, lock=True)
            session.execute(
                update(MessageRow)
                .where(MessageRow.id.in_((row.left_id, row.right_id)), MessageRow.state == "unsent")
                .values(state="open", asked_by=user)
            )

    def withdraw(self, battle: Battle) -> None:
        """Take its last question back, which the queue refused, unless another call did so."""
        with self._database.write() as session:
            row = session.get(BattleRow, battle.id, with_for_update=True)
            if row is None or row.left_id != battle.rounds[-1].left.id:
                return
            if len(battle.rounds) == 1:
                session.delete(session.get_one(ConversationRow, row.conversation_id))
                return
            before, gone = battle.rounds[-2:]
            row.left_id, row.right_id = before.left.id, before.right.id
            session.flush()
            questions = [session.get_one(MessageRow, each.id).parent_id for each in (gone.left, gone.right)]
            for ids in ((gone.left.id, gone.right.id), questions):
                session.execute(delete(MessageRow).where(MessageRow.id.in_(ids)))

    def requests(self, user: str, battle_id: str) -> tuple[ChatRequest, ChatRequest]:
        """Both requests of the last question, each with what its side said before. Raises InvalidRequest."""
        with self._database.read() as session:
            row = _row(session, user, battle_id)
            left, right = (self._request(session, user, each) for each in (row.left_id, row.right_id))
            return left, right

    def _request(self, session: Session, user: str, answer_id: str) -> ChatRequest:
        answer = session.get_one(MessageRow, answer_id)
        prompt = prompt_for(path_of(session, answer.conversation_id, answer.parent_id), "", self._limits)
        raw = {"id": answer.id, "model": answer.model, "messages": prompt.encoded(), **answer.parameters}
        return parse_request(raw, user=user, max_chars=self._limits.characters)

    def _check_room(self, session: Session, user: str, question: str) -> None:
        """Raises StorageFull, Unavailable."""
        if self._stored_bytes is not None:
            self._stored_bytes.check(session, user, len(question.encode()))

    @staticmethod
    def _add(session: Session, user: str, battle_id: str, question: str, sides: tuple[Contestant, Contestant]) -> None:
        left, right = sides
        conversation = new_conversation(session, hidden(user), battle_id, title=title_from(question), folder=FOLDER)
        session.flush()
        row = BattleRow(
            id=battle_id,
            owner=user,
            conversation_id=battle_id,
            left_model=left.model,
            right_model=right.model,
            left_parameters=dict(left.parameters),
            right_parameters=dict(right.parameters),
            created_ms=conversation.created_ms,
        )
        _add_round(session, row, 0, question, (None, None))
        session.add(row)
        session.flush()

    # -- judging -------------------------------------------------------------------------------------------------

    def get(self, user: str, battle_id: str) -> Battle:
        """Raises NotFound, for another user's battle too."""
        with self._database.read() as session:
            return _read(session, _row(session, user, battle_id))

    def vote(self, user: str, battle_id: str, vote: object) -> Battle:
        """Vote, once. Raises Conflict for a second vote that differs, and before both answers are whole."""
        if vote not in VOTES:
            raise InvalidRequest(f"vote {shown(vote)} is not one of {', '.join(VOTES)}", field="vote")
        with self._database.write() as session:
            row = _row(session, user, battle_id, lock=True)
            battle = _read(session, row)
            _check_vote(battle, str(vote))
            if row.vote is None:
                _settle(session, row, str(vote))
            return _read(session, row)


def battle_of(session: Session, row: BattleRow) -> Battle:
    """A battle with its questions and answers, for exports."""
    return _read(session, row)


@contextmanager
def _free_ids() -> Iterator[None]:
    """Raises Conflict for ids that somebody uses, or the same question twice at once."""
    try:
        yield
    except IntegrityError:
        raise Conflict("the battle's id is in use; choose another id", field="id") from None


def _add_round(
    session: Session, row: BattleRow, number: int, question: str, parents: tuple[str | None, str | None]
) -> None:
    """Both sides share the first question; a later one stands under each side's answer."""
    conversation = session.get_one(ConversationRow, row.conversation_id)
    settings = ((row.left_model, row.left_parameters), (row.right_model, row.right_parameters))
    for side, parent, (model, parameters) in zip(SIDES, parents, settings, strict=True):
        asked = f"{row.id}-{number}" if parent is None else f"{row.id}-{number}-{side}"
        if session.get(MessageRow, asked) is None:
            append(session, conversation, id=asked, parent_id=parent, role="user", content=question)
        answer = append(
            session,
            conversation,
            id=answer_id(row.id, number, side),
            parent_id=asked,
            role="assistant",
            state="unsent",
            model=model,
            parameters=dict(parameters),
            asked_by=row.owner,
        )
        setattr(row, f"{side}_id", answer.id)


def _settle(session: Session, row: BattleRow, vote: str) -> None:
    row.vote, row.voted_ms = vote, now_ms()
    conversation = session.get_one(ConversationRow, row.conversation_id)
    conversation.owner, conversation.updated_ms = row.owner, row.voted_ms
    conversation.current_id = row.right_id if vote == "right" else row.left_id
    session.flush()


def _row(session: Session, user: str, battle_id: str, *, lock: bool = False) -> BattleRow:
    """Locked for whoever looks at it before a change: PostgreSQL lets two transactions look at once."""
    row = session.get(BattleRow, battle_id, with_for_update=lock)
    if row is None or row.owner != user:
        raise NotFound(f"you have no battle {shown(battle_id)}; ask a question in the arena")
    return row


def _read(session: Session, row: BattleRow) -> Battle:
    messages = {
        each.id: each
        for each in session.scalars(select(MessageRow).where(MessageRow.conversation_id == row.conversation_id))
    }
    left, right = _answers(messages, row.left_id), _answers(messages, row.right_id)
    rounds = [
        Round(messages[str(a.parent_id)].content, _answer(a), _answer(b)) for a, b in zip(left, right, strict=True)
    ]
    return Battle(
        row.id,
        row.conversation_id,
        Contestant(row.left_model, row.left_parameters),
        Contestant(row.right_model, row.right_parameters),
        tuple(rounds),
        row.vote,
    )


def _answers(messages: Mapping[str, MessageRow], last_id: str) -> list[MessageRow]:
    """A side's answers, the first one first."""
    found, here = [], messages.get(last_id)
    while here is not None:
        if here.role == "assistant":
            found.append(here)
        here = messages.get(here.parent_id or "")
    return found[::-1]


def _answer(row: MessageRow) -> Answer:
    return Answer(row.id, row.state, row.content, row.reasoning, row.code)


def _asked(battle: Battle, number: int, question: str) -> Battle:
    if battle.rounds[number].question != storable(question):
        raise Conflict(f"question {number} of this battle is another one; begin a new battle")
    return battle


def _check_next(battle: Battle, number: int) -> None:
    if number != len(battle.rounds):
        raise Conflict(f"the next question of this battle has the number {len(battle.rounds)}, not {number}")
    if battle.vote is not None:
        raise Conflict("this battle is over: it has a vote; begin a new battle")
    if number >= MAX_QUESTIONS:
        raise Conflict(f"a battle has at most {MAX_QUESTIONS} questions; vote, or begin a new battle")
    if not _is_whole(battle):
        raise Conflict("an answer is not whole; wait for both, or begin a new battle")


def _check_vote(battle: Battle, vote: str) -> None:
    if battle.vote not in (None, vote):
        raise Conflict(f"this battle has the vote {battle.vote}; a vote is given once")
    if not _is_whole(battle):
        raise Conflict("an answer is not whole; vote when both are, or begin a new battle")


def _is_whole(battle: Battle) -> bool:
    return all(answer.state == "finished" for answer in (battle.rounds[-1].left, battle.rounds[-1].right))
