"""Asks a question in a conversation: its rows first, then its request. Sockets and the arena call it.

An answer's row is `unsent` until the queue has accepted its request, so a process that dies in between leaves a row
that says so. Sending the same `ask` again is harmless at any time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from services.chat.requests import Requests
from services.connection.connect import translated
from services.conversations.archivist import Archivist
from services.conversations.conversations import new_conversation, owned, path_of
from services.conversations.edits import (
    MAX_SYSTEM_CHARS,
    MAX_TITLE_CHARS,
    parse_id,
    parse_object,
    parse_settings,
    parse_text,
)
from services.conversations.prompt import Prompt, PromptLimits, prompt_for
from services.conversations.stored import StoredBytes
from services.conversations.tables import ConversationRow, MessageRow, storable
from services.conversations.titles import title_from
from services.database.calls import Run, at_once, once_more
from services.database.clock import now_ms
from services.database.database import Database
from services.errors import ChatServerError, Conflict, InvalidRequest, NotFound
from services.wire.keys import check_name
from services.wire.messages import ChatRequest
from services.wire.parsing import parse_request

FIELDS = {
    "conversation", "id", "parent", "question", "model", "sampling", "thinking", "title", "system", "continues",
}  # fmt: skip
MAX_EXTRA_BYTES = 10_000


@dataclass(frozen=True)
class Question:
    """A user's message that is new."""

    id: str
    content: str
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class Ask:
    """One question of a client. `parent` is what the question stands under; without `question`, the question itself."""

    conversation: str
    id: str
    model: str
    parent: str | None = None
    question: Question | None = None
    settings: Mapping[str, Any] | None = None  # None: those of the conversation
    title: str = ""
    system: str | None = None  # None: that of the conversation
    continues: str = ""


@dataclass(frozen=True)
class Asked:
    """`request` is None when the answer has ended. `omitted`: older messages that had no room in it."""

    rid: str
    omitted: int
    request: ChatRequest | None


class Asker:
    """`run` calls what uses the database; the web process gives a function that does so in a thread."""

    def __init__(
        self,
        database: Database,
        requests: Requests,
        limits: PromptLimits,
        run: Run = at_once,
        stored: StoredBytes | None = None,
    ) -> None:
        self._database = database
        self._stored_bytes = stored
        self._requests = requests
        self._limits = limits
        self._run = run
        self._archivist = Archivist(database, requests, run)

    def ask(self, owner: str, ask: Ask, address: str = "") -> Asked:
        """Raises InvalidRequest, NotFound, Conflict, Unavailable, StorageFull, and what `Requests.submit` raises.

        A refusal by the queue leaves the answer's row `unsent`, with the error.
        """
        self._archivist.catch_up(ask.conversation)  # the prompt has what was answered just now
        asked: Asked = self._run(once_more, self._stored, owner, ask)
        if asked.request is None:
            return asked
        try:
            with translated():
                self._requests.submit(asked.request, address)
        except ChatServerError as error:
            self._run(self._mark, ask.id, {"code": error.code, "error": error.message})
            raise
        self._run(self._mark, ask.id, {"state": "open", "code": "", "error": "", "asked_by": owner})
        return asked

    def _stored(self, owner: str, ask: Ask) -> Asked:
        with self._database.write() as session:
            conversation = _conversation(session, owner, ask)
            answer = session.get(MessageRow, ask.id)
            if answer is None and self._stored_bytes is not None:
                self._stored_bytes.check(session, owner, len(ask.question.content.encode()) if ask.question else 0)
            if answer is None:
                answer = _new_answer(session, conversation, ask)
                answer.asked_by = owner
            else:
                _check_same(session, answer, ask)
                if answer.state == "unsent":  # the conversation may have another owner than when it was asked first
                    answer.asked_by = owner
            if answer.state not in ("unsent", "open"):
                return Asked(answer.id, 0, None)
            path = path_of(session, conversation.id, answer.parent_id)
            prompt = prompt_for(path, conversation.system, _beside(answer, self._limits))
            if prompt.omitted:
                answer.extra = {**answer.extra, "omitted": prompt.omitted}
            return Asked(answer.id, prompt.omitted, self._request(owner, answer, prompt))

    def _request(self, owner: str, answer: MessageRow, prompt: Prompt) -> ChatRequest:
        raw = {"id": answer.id, "model": answer.model, "messages": prompt.encoded(), **answer.parameters}
        if answer.content or answer.reasoning:
            begun = {"role": "assistant", "content": answer.content}
            raw["messages"].append({**begun, "reasoning": answer.reasoning} if answer.reasoning else begun)
            raw["continue_final"] = True
        return parse_request(raw, user=owner, max_chars=self._limits.characters)

    def _mark(self, rid: str, values: dict[str, Any]) -> None:
        unsent = update(MessageRow).where(MessageRow.id == rid, MessageRow.state == "unsent")
        with self._database.write() as session:
            session.execute(unsent.values(**values))


def _beside(answer: MessageRow, limits: PromptLimits) -> PromptLimits:
    """The room that is left beside the text that the answer carries on."""
    begun = len(answer.content) + len(answer.reasoning)
    return replace(
        limits,
        characters=limits.characters - begun,
        bytes=limits.bytes - 4 * begun,  # UTF-8 has four bytes for a character at most
        messages=limits.messages - bool(begun),
    )


def parse_ask(raw: object, *, max_chars: int) -> Ask:
    """From untrusted JSON. Raises InvalidRequest naming what is wrong."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"an ask must be an object, not {type(raw).__name__}")
    if unknown := sorted(map(str, set(raw) - FIELDS)):
        raise InvalidRequest(f"unknown field {unknown[0]!r:.80} of an ask")
    settings = {name: raw[name] for name in ("sampling", "thinking") if raw.get(name) is not None}
    question = None if raw.get("question") is None else _parse_question(raw["question"], max_chars)
    if question is not None and question.id == raw.get("id"):
        raise InvalidRequest("question.id is the answer's id, too; choose another id", field="question.id")
    parent = None if raw.get("parent") is None else check_name(raw["parent"], "parent")
    if question is None and parent is None:
        raise InvalidRequest("an ask without a question needs as `parent` the question that is answered once more")
    return Ask(
        parse_id(raw.get("conversation"), "conversation"),
        parse_id(raw.get("id")),
        check_name(raw.get("model"), "model"),
        parent,
        question,
        parse_settings(settings) if settings else None,
        parse_text(raw.get("title") or "", "title", MAX_TITLE_CHARS).strip(),
        None if raw.get("system") is None else parse_text(raw["system"], "system", MAX_SYSTEM_CHARS),
        check_name(raw["continues"], "continues") if raw.get("continues") else "",
    )


def _parse_question(raw: object, max_chars: int) -> Question:
    if not isinstance(raw, Mapping) or set(raw) - {"extra"} != {"id", "content"}:
        raise InvalidRequest("question must be an object with id and content, perhaps with extra")
    content = parse_text(raw["content"], "question.content", max_chars)
    if not content.strip():
        raise InvalidRequest("question.content is empty; write something")
    extra = parse_object(raw.get("extra"), "question.extra", MAX_EXTRA_BYTES)
    return Question(parse_id(raw["id"], "question.id"), content, extra)


def _conversation(session: Session, owner: str, ask: Ask) -> ConversationRow:
    """The conversation, locked; made if it is new."""
    found = session.get(ConversationRow, ask.conversation, with_for_update=True)
    if found is None:
        title = ask.title or title_from(ask.question.content if ask.question else "")
        found = new_conversation(session, owner, ask.conversation, title=title, system=ask.system or "")
        found.titled_by = "user" if ask.title else "first_words"
        found.settings = dict(ask.settings or {})
        session.flush()
    found = owned(session, owner, ask.conversation)
    if ask.system is not None:
        found.system = ask.system
    return found


def _new_answer(session: Session, conversation: ConversationRow, ask: Ask) -> MessageRow:
    """The answer's row under its question's; both are flushed."""
    question_id = _question_id(session, conversation, ask)
    answer = append(
        session,
        conversation,
        id=ask.id,
        parent_id=question_id,
        role="assistant",
        state="unsent",
        model=ask.model,
        parameters=dict(conversation.settings if ask.settings is None else ask.settings),
    )
    if ask.continues:
        begun = _inside(session, conversation.id, ask.continues, "assistant")
        if begun.parent_id != question_id or not begun.content:
            raise InvalidRequest(f"continues={ask.continues!r} is no answer to this question that has a text")
        answer.content, answer.reasoning = begun.content, begun.reasoning
        answer.extra = {"continues": begun.id}
    conversation.current_id, conversation.model = answer.id, ask.model
    session.flush()
    return answer


def _question_id(session: Session, conversation: ConversationRow, ask: Ask) -> str:
    if ask.parent is not None:
        _inside(session, conversation.id, ask.parent, None if ask.question else "user")
    if ask.question is None:
        assert ask.parent is not None, "parse_ask asks for one of the two"
        return ask.parent
    found = session.get(MessageRow, ask.question.id)
    if found is None:
        about = {"content": ask.question.content, "extra": dict(ask.question.extra)}
        found = append(session, conversation, id=ask.question.id, parent_id=ask.parent, role="user", **about)
    elif not _is_question(found, ask):
        raise Conflict(f"another message has the id {ask.question.id!r}; choose another id", field="question")
    return found.id


def append(session: Session, conversation: ConversationRow, **fields: Any) -> MessageRow:
    """A new message at the end of a conversation that the session has locked; flushed."""
    now = now_ms()
    last = select(func.coalesce(func.max(MessageRow.place), -1)).where(MessageRow.conversation_id == conversation.id)
    place = (session.scalar(last) or 0) + 1
    row = MessageRow(conversation_id=conversation.id, place=place, created_ms=now, **{"extra": {}, **fields})
    session.add(row)
    conversation.updated_ms = now
    session.flush()
    return row


def _inside(session: Session, cid: str, mid: str, role: str | None) -> MessageRow:
    """A message of this conversation. Raises NotFound."""
    found = session.get(MessageRow, mid)
    if found is None or found.conversation_id != cid or (role is not None and found.role != role):
        raise NotFound(f"this conversation has no {role or 'message'} {mid!r:.80}; load it again")
    return found


def _check_same(session: Session, answer: MessageRow, ask: Ask) -> None:
    """Raises Conflict unless the answer is the one to this ask."""
    question = session.get(MessageRow, answer.parent_id)
    same = (
        answer.conversation_id == ask.conversation
        and answer.role == "assistant"
        and answer.model == ask.model
        and answer.extra.get("continues", "") == ask.continues
        and question is not None
        and (_is_question(question, ask) if ask.question else question.id == ask.parent)
    )
    if not same:
        raise Conflict(f"another question uses the request id {answer.id}; choose another id", field="id")


def _is_question(row: MessageRow, ask: Ask) -> bool:
    asked = ask.question
    assert asked is not None
    where = (row.conversation_id, row.parent_id, row.role, row.id)
    return where == (ask.conversation, ask.parent, "user", asked.id) and row.content == storable(asked.content)
