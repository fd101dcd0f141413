"""Judgements → records for cleaning and fine-tuning, in shapes that both read (docs/training.md).

    rated    {"id", "messages": [… {"role": "assistant", "content", "label": true}]}   one for each rated answer
    pairs    {"prompt": [messages], "chosen": [message], "rejected": [message], "source"}

The answers before a rated one have no label, since nobody judged them: KTO only reads them, as does `learn=last`. (With
`weight: 0` a cleaning would reject the record.) A pair is what a person compared: a vote (no tie, and no battle with
several questions, whose vote was for all answers together); a correction over the answer that it corrects; of two
versions of an answer, the one that was rated up or gone on with, over the one that was rated down. An answer that did
not end by itself teaches nothing.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from services.arena.tables import BattleRow
from services.conversations.feedback import Judgement, newest
from services.conversations.prompt import PromptLimits, prompt_for
from services.conversations.shapes import path_to
from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow

RATINGS: Mapping[str, tuple[str, ...]] = {"up": ("up",), "down": ("down",), "any": ("up", "down")}
NO_LIMITS = PromptLimits(2**60, 2**60, 2**60)  # the training cuts, and counts what it cuts
WHOLE = ("stop", "")  # the codes of answers that ended by themselves; older imports have none
NOT_WHOLE = "the answer did not end by itself"
SEVERAL_QUESTIONS = "the vote was for the answers to several questions"
CONTRADICTION = "the same two answers were judged both ways"
EQUAL = "two equal answers"


@dataclass
class Export:
    """The records, and why judgements became none: reason → how many."""

    records: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[bytes]:
        return (orjson.dumps(record) + b"\n" for record in self.records)

    def said(self) -> str:
        """What was left out, in words; empty if nothing was."""
        return "; ".join(f"{number} left out: {reason}" for reason, number in sorted(self.left_out.items()))


def rated(session: Session, rating: str) -> Export:
    """The answers that were rated `up`, `down` or `any` of the two, oldest conversation first."""
    export = Export()
    for judged in _conversations(session):
        for message, judgement in judged.rated(RATINGS[rating]):
            if not _is_whole(message):
                export.left_out[NOT_WHOLE] += 1
                continue
            answer = {**_answer(message), "label": judgement.verdict == "up"}
            about = {"id": message.id, "conversation": message.conversation_id, "model": message.model}
            export.records.append({**about, "messages": [*judged.context(message), answer]})
    return export


def pairs(session: Session) -> Export:
    """What people preferred to what, oldest conversation first; each pair once."""
    export, found = Export(), []
    for judged in _conversations(session):
        for pair in judged.pairs(export.left_out):
            found.append(_record(judged, pair))
    export.records = _agreed(found, export.left_out)
    return export


# -- one conversation ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """Two answers to one question. `better` is the text of a correction, which stands for the chosen one."""

    source: str
    rejected: MessageRow
    chosen: MessageRow | None = None
    better: str = ""


@dataclass(frozen=True)
class _Judged:
    """A conversation that somebody judged."""

    conversation: ConversationRow
    messages: Sequence[MessageRow]
    judgements: Mapping[str, Judgement]
    battle: BattleRow | None

    def rated(self, verdicts: Collection[str]) -> Iterator[tuple[MessageRow, Judgement]]:
        for message in self.messages:
            judgement = self.judgements.get(message.id)
            if judgement is not None and judgement.verdict in verdicts:
                yield message, judgement

    def context(self, answer: MessageRow) -> list[dict[str, Any]]:
        """What the model read before this answer."""
        path = path_to(self.messages, answer.parent_id)
        return prompt_for(path, self.conversation.system, NO_LIMITS).encoded()

    def pairs(self, left_out: Counter[str]) -> Iterator[_Pair]:
        for pair in (*self._of_vote(left_out), *self._of_corrections(), *self._of_versions()):
            if all(map(_is_whole, filter(None, (pair.rejected, pair.chosen)))):
                yield pair
            else:
                left_out[NOT_WHOLE] += 1

    def _of_vote(self, left_out: Counter[str]) -> Iterator[_Pair]:
        if self.battle is None or self.battle.vote not in ("left", "right"):
            return
        known = {message.id: message for message in self.messages}
        left, right = known[self.battle.left_id], known[self.battle.right_id]
        if left.parent_id != right.parent_id:
            left_out[SEVERAL_QUESTIONS] += 1
            return
        chosen, rejected = (left, right) if self.battle.vote == "left" else (right, left)
        yield _Pair("vote", rejected, chosen)

    def _of_corrections(self) -> Iterator[_Pair]:
        for message in self.messages:
            judgement = self.judgements.get(message.id)
            if judgement is not None and judgement.better:
                yield _Pair("correction", message, better=judgement.better)

    def _of_versions(self) -> Iterator[_Pair]:
        """Only of answers that were rated down: who asks once more has not said that the first answer was worse."""
        for rejected, _ in self.rated(("down",)):
            for chosen in self.messages:
                if chosen.role == "assistant" and chosen.parent_id == rejected.parent_id and self._is_kept(chosen):
                    yield _Pair("versions", rejected, chosen)

    def _is_kept(self, message: MessageRow) -> bool:
        judgement = self.judgements.get(message.id)
        if judgement is not None:
            return judgement.verdict == "up"
        return any(each.parent_id == message.id and each.role == "user" for each in self.messages)


def _conversations(session: Session) -> Iterator[_Judged]:
    """Each conversation with a judgement or a vote that is not deleted; one at a time is in memory."""
    with_feedback = select(MessageRow.conversation_id).join(FeedbackRow, FeedbackRow.message_id == MessageRow.id)
    with_vote = select(BattleRow.conversation_id).where(BattleRow.vote.is_not(None))
    ids = session.scalars(
        select(ConversationRow.id)
        .where(or_(ConversationRow.id.in_(with_feedback), ConversationRow.id.in_(with_vote)))
        .where(ConversationRow.deleted_ms.is_(None))
        .order_by(ConversationRow.created_ms, ConversationRow.id)
    ).all()
    for cid in ids:
        yield _Judged(
            session.get_one(ConversationRow, cid),
            session.scalars(
                select(MessageRow).where(MessageRow.conversation_id == cid).order_by(MessageRow.place)
            ).all(),
            newest(session, cid),
            session.scalars(
                select(BattleRow).where(BattleRow.conversation_id == cid, BattleRow.vote.is_not(None))
            ).first(),
        )
        session.expunge_all()


# -- records ---------------------------------------------------------------------------------------------------------


def _is_whole(message: MessageRow) -> bool:
    return message.state == "finished" and message.code in WHOLE and bool(message.content.strip())


def _answer(message: MessageRow) -> dict[str, Any]:
    said = {"role": "assistant", "content": message.content}
    return {**said, "reasoning": message.reasoning} if message.reasoning else said


def _record(judged: _Judged, pair: _Pair) -> dict[str, Any]:
    """Where one side alone has reasoning, as beside a correction, neither has it here: nobody judged thinking."""
    chosen = {"role": "assistant", "content": pair.better} if pair.chosen is None else _answer(pair.chosen)
    rejected = _answer(pair.rejected)
    if not ("reasoning" in chosen and "reasoning" in rejected):
        for side in (chosen, rejected):
            side.pop("reasoning", None)
    return {
        "id": pair.rejected.id,
        "source": pair.source,
        "prompt": judged.context(pair.rejected),
        "chosen": [chosen],
        "rejected": [rejected],
    }


def _agreed(records: Sequence[dict[str, Any]], left_out: Counter[str]) -> list[dict[str, Any]]:
    """Each pair once, and none that another judgement contradicts."""
    kept: dict[bytes, dict[str, Any]] = {}
    for record in records:
        key = orjson.dumps([record["prompt"], record["chosen"], record["rejected"]])
        kept.setdefault(key, record)
    agreed = []
    for record in kept.values():
        if record["chosen"][0]["content"].strip() == record["rejected"][0]["content"].strip():
            left_out[EQUAL] += 1
        elif orjson.dumps([record["prompt"], record["rejected"], record["chosen"]]) in kept:
            left_out[CONTRADICTION] += 1
        else:
            agreed.append(record)
    return agreed
