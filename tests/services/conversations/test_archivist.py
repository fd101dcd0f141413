"""Ended answers come from the journal to their rows: once, whole, and without any reader."""

import threading
from typing import Any

import pytest
from redis import Redis

from services.chat.journal import Ownership
from services.chat.moderation import Moderator, VerdictKind
from services.chat.requests import Requests
from services.conversations import archivist as room
from services.conversations.archivist import Archivist
from services.conversations.asking import Asker, parse_ask
from services.conversations.conversations import Conversations
from services.conversations.prompt import PromptLimits
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.errors import Unavailable, UnknownModel
from services.wire.messages import ChatRequest, Event, Message
from tests.conftest import Eventually
from tests.moderation import Endpoint


@pytest.fixture
def archivist(database: Database, requests: Requests) -> Archivist:
    return Archivist(database, requests)


def ask(asker: Asker, rid: str = "a1", **fields: Any) -> None:
    raw = {"conversation": "c", "id": rid, "parent": None, "model": "echo", **fields}
    raw.setdefault("question", {"id": f"q-{rid}", "content": "sea?"})
    asker.ask("ada", parse_ask(raw, max_chars=100))


def begin(requests: Requests, rid: str = "a1") -> None:
    head = requests.journal.head(rid)
    assert head is not None
    request = ChatRequest(rid, head.user, head.model, (Message("user", "sea?"),))
    owned = requests.journal.begin(
        request, head.payload, epoch=1, nonce="n", wid="w", max_tries=3, max_begins=20, deadline_ms=600_000
    )
    assert isinstance(owned, Ownership), owned


def write(requests: Requests, text: str, rid: str = "a1", **more: Any) -> None:
    event = Event("tokens", "n", 0, 0, (1,), text, **more)
    requests.journal.load_append()
    requests.journal._redis.execute_command(*requests.journal.append_command(rid, 1, event))


def finish(requests: Requests, kind: Any, offset: int, rid: str = "a1", **more: Any) -> None:
    assert requests.journal.finish(rid, 1, Event(kind, "n", 1, offset, **more)) is None


def row(database: Database, rid: str = "a1") -> MessageRow:
    with database.read() as session:
        return session.get_one(MessageRow, rid)


def test_a_finished_answer_is_closed_once_with_reasoning_and_answer_apart(
    asker: Asker, archivist: Archivist, requests: Requests, database: Database, conversations: Conversations
) -> None:
    ask(asker)
    begin(requests)
    assert archivist.round() == 0 and row(database).state == "open"
    write(requests, "hm. The sea", parts=((0, "reasoning"), (4, "answer")))
    finish(requests, "finished", 11, code="stop", usage={"completion_tokens": 3})
    assert archivist.round() == 1
    assert archivist.round() == 0
    closed = row(database)
    assert (closed.state, closed.code, closed.content, closed.reasoning) == ("finished", "stop", "The sea", "hm. ")
    assert closed.usage is not None and closed.usage["completion_tokens"] == 3
    assert not conversations.find("ada", "c").running
    assert closed.ended_ms == conversations.find("ada", "c").conversation.updated_ms


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
def test_an_interrupted_answer_is_kept_as_what_it_is_with_its_text(
    kind: str, asker: Asker, archivist: Archivist, requests: Requests, database: Database
) -> None:
    ask(asker)
    begin(requests)
    write(requests, "The s")
    finish(requests, kind, 5, code="engine_error", message="out of tea")
    archivist.round()
    closed = row(database)
    assert (closed.state, closed.content, closed.code, closed.error) == (kind, "The s", "engine_error", "out of tea")


def test_one_of_many_archivists_closes_a_row(asker: Asker, requests: Requests, database: Database) -> None:
    ask(asker)
    begin(requests)
    write(requests, "The sea")
    finish(requests, "finished", 7, code="stop")
    closed: list[int] = []
    several = [Archivist(database, requests) for _ in range(6)]
    threads = [threading.Thread(target=lambda one=one: closed.append(one.round())) for one in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(closed) == [0, 0, 0, 0, 0, 1]
    assert row(database).content == "The sea"


def test_a_version_that_carries_on_has_both_texts(
    asker: Asker, archivist: Archivist, requests: Requests, database: Database
) -> None:
    ask(asker)
    begin(requests)
    write(requests, "The sea")
    finish(requests, "finished", 7, code="length")
    archivist.round()
    ask(asker, "a2", parent="q-a1", question=None, continues="a1")
    begin(requests, "a2")
    write(requests, " is wide", "a2")
    finish(requests, "finished", 8, "a2", code="stop")
    archivist.round()
    assert row(database, "a2").content == "The sea is wide" and row(database).content == "The sea"


def test_a_request_that_was_queued_by_a_process_that_died_opens_its_row(
    asker: Asker, archivist: Archivist, requests: Requests, database: Database
) -> None:
    ask(asker)
    with database.write() as session:
        session.get_one(MessageRow, "a1").state = "unsent"
    archivist.round()
    assert row(database).state == "open"


def test_a_request_that_redis_forgot_is_lost_after_a_while(
    asker: Asker, archivist: Archivist, requests: Requests, database: Database, redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ask(asker)
    state = requests.keys.state("a1")
    kept = redis_client.dump(state)
    redis_client.delete(state)
    assert archivist.round() == 0 and row(database).missing_ms
    redis_client.restore(state, 60_000, kept)
    archivist.round()
    assert row(database).missing_ms is None, "it was submitted again"
    redis_client.delete(state)
    archivist.round()
    monkeypatch.setattr(room, "LOST_MS", -1)
    assert archivist.round() == 1
    assert (row(database).state, row(database).code) == ("failed", "lost")


def test_an_unsent_question_waits_for_a_day(
    asker: Asker, archivist: Archivist, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownModel):
        ask(asker, model="none")
    assert archivist.round() == 0 and row(database).state == "unsent"
    monkeypatch.setattr(room, "UNSENT_MS", -1)
    archivist.round()
    assert (row(database).state, row(database).code) == ("failed", "unknown_model")


def test_what_has_long_been_unsent_is_looked_at_in_whole_rounds_only(
    asker: Asker, archivist: Archivist, database: Database
) -> None:
    ask(asker)
    with database.write() as session:
        row_ = session.get_one(MessageRow, "a1")
        row_.state, row_.created_ms = "unsent", row_.created_ms - room.YOUNG_MS - 1
    archivist.round(whole=False)
    assert row(database).state == "unsent"
    archivist.round()
    assert row(database).state == "open", "Redis knows the request"


def test_another_users_answer_under_the_same_id_never_gets_into_a_row(
    asker: Asker, archivist: Archivist, requests: Requests, database: Database
) -> None:
    requests.submit(ChatRequest("a1", "eve", "echo", (Message("user", "hers"),)))
    with pytest.raises(Exception, match="choose another id"):
        ask(asker)
    begin(requests)
    write(requests, "hers")
    finish(requests, "finished", 4, code="stop")
    archivist.round()
    assert (row(database).state, row(database).content) == ("unsent", "")


def test_an_archivist_goes_on_after_an_outage_and_says_so_once(
    database: Database, requests: Requests, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    outages = iter([True, True, False])

    def run(function: Any, *arguments: Any) -> Any:
        if next(outages, False):
            raise Unavailable("the database is away")
        return function(*arguments)

    archivist, stopping = Archivist(database, requests, run), threading.Event()
    thread = threading.Thread(target=archivist.serve, args=(stopping,))
    thread.start()
    for _ in range(3):
        archivist.ended("x")
    eventually(lambda: "archived again" in caplog.text, "the end of the outage")
    stopping.set()
    archivist.ended("x")
    thread.join()
    assert caplog.text.count("the database is away") == 1


def answered(asker: Asker, requests: Requests, rid: str = "a1", text: str = "The sea") -> None:
    """Asked and answered; nobody has archived it."""
    ask(asker, rid)
    begin(requests, rid)
    write(requests, text, rid)
    finish(requests, "finished", len(text), rid, code="stop")


def test_the_next_question_knows_an_answer_that_ended_just_now(asker: Asker, requests: Requests) -> None:
    answered(asker, requests)
    raw = {
        "conversation": "c",
        "id": "a2",
        "parent": "a1",
        "model": "echo",
        "question": {"id": "q2", "content": "why?"},
    }
    asked = asker.ask("ada", parse_ask(raw, max_chars=100))
    assert asked.request is not None
    assert [message.content for message in asked.request.messages] == ["sea?", "The sea", "why?"]


def test_an_answer_that_this_build_cannot_read_costs_the_others_nothing(
    asker: Asker, archivist: Archivist, requests: Requests, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    answered(asker, requests)
    raw = {"conversation": "d", "id": "b1", "parent": None, "model": "echo", "question": {"id": "qb", "content": "?"}}
    asker.ask("ada", parse_ask(raw, max_chars=100))
    begin(requests, "b1")
    write(requests, "Yes", "b1")
    finish(requests, "finished", 3, "b1", code="stop")
    journal = requests.keys.journal("a1")
    (entry, fields), *_ = requests.journal._redis.xrevrange(journal, count=1)
    requests.journal._redis.xdel(journal, entry)
    newer = {name: value.replace(b'"v":1', b'"v":99') for name, value in fields.items()}
    requests.journal._redis.xadd(journal, {**newer, b"e": b"of another build"}, id=entry.split(b"-")[0] + b"-9999")
    assert archivist.round() == 1 and archivist.round() == 0
    assert (row(database).state, row(database, "b1").state) == ("open", "finished")
    assert sum("cannot be archived" in record.message for record in caplog.records) == 1


def test_a_request_that_was_lost_in_its_queue_is_queued_again_though_nobody_watches(
    asker: Asker, archivist: Archivist, requests: Requests
) -> None:
    ask(asker)
    requests.queue("echo").withdraw("a1", "ada")
    assert not requests.queue("echo").holds("a1")
    archivist.round(whole=False)
    archivist.round()
    assert not requests.queue("echo").holds("a1")
    archivist.round()
    assert requests.queue("echo").holds("a1")


def test_a_late_archive_moves_no_conversation_back_in_time(
    asker: Asker, archivist: Archivist, requests: Requests, conversations: Conversations
) -> None:
    answered(asker, requests)
    with conversations._database.write() as session:
        session.get_one(ConversationRow, "c").updated_ms += 3_600_000
    before = conversations.find("ada", "c").conversation.updated_ms
    assert archivist.round() == 1
    assert conversations.find("ada", "c").conversation.updated_ms == before


def test_a_refused_question_that_its_new_owner_sends_again_is_archived(
    asker: Asker, archivist: Archivist, requests: Requests, database: Database
) -> None:
    with pytest.raises(UnknownModel):
        ask(asker, model="nobody")
    requests.journal._redis.sadd(requests.keys.models, "nobody")
    with database.write() as session:
        session.get_one(ConversationRow, "c").owner = "bob"
    raw = {"conversation": "c", "id": "a1", "parent": None, "model": "nobody"}
    asker.ask("bob", parse_ask({**raw, "question": {"id": "q-a1", "content": "sea?"}}, max_chars=100))
    begin(requests)
    write(requests, "The sea")
    finish(requests, "finished", 7, code="stop")
    assert archivist.round() == 1 and row(database).content == "The sea"


def moderated(requests: Requests, url: str, outage: VerdictKind = "flag") -> Requests:
    return Requests(requests._redis, requests.keys, moderator=Moderator(url, timeout_s=0.4, outage=outage))


def archived(database: Database, requests: Requests, text: str) -> MessageRow:
    answered(Asker(database, requests, PromptLimits(1_000, 10_000)), requests, text=text)
    assert Archivist(database, requests).round() == 1
    return row(database)


@pytest.mark.parametrize(
    ("text", "kept"),
    [("odd", {"answer": "flag: it says flag"}), ("bad", {"answer": "refuse: it says refuse"}), ("sea", None)],
)
def test_the_verdict_on_an_answer_stands_with_it_and_takes_nothing_away(
    text: str, kept: object, requests: Requests, database: Database
) -> None:
    with Endpoint() as endpoint:
        closed = archived(database, moderated(requests, endpoint.url), text)
    assert endpoint.asked[-1]["stage"] == "answer" and endpoint.asked[-1]["user"] == "ada"
    assert endpoint.asked[-1]["messages"] == [{"role": "assistant", "content": text, "reasoning": ""}]
    assert (closed.state, closed.content, closed.extra.get("moderation")) == ("finished", text, kept)


def test_an_answer_is_archived_while_the_moderation_is_away(requests: Requests, database: Database) -> None:
    closed = archived(database, moderated(requests, "http://127.0.0.1:9/"), "sea")
    flagged = "flag: no verdict"
    assert (closed.content, closed.extra["moderation"]) == ("sea", {"question": flagged, "answer": flagged})
