"""Judgements of answers: a log that only grows, of which an author's newest entry holds."""

import pytest
from sqlalchemy import select

from services.conversations.feedback import Feedback, Judgement, newest, parse_judgement
from services.conversations.stored import StoredBytes
from services.conversations.tables import ConversationRow, FeedbackRow, MessageRow
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, NotFound, StorageFull


@pytest.fixture
def feedback(database: Database) -> Feedback:
    """The log of a conversation with an answer that has ended and one that has not."""
    with database.write() as session:
        session.add(ConversationRow(id="c", owner="ada", title="t", created_ms=1, updated_ms=1))
        session.flush()
        session.add(MessageRow(id="q", place=0, conversation_id="c", role="user", content="Why?", created_ms=1))
        session.flush()
        answer = {"conversation_id": "c", "parent_id": "q", "role": "assistant", "created_ms": 1, "place": 1}
        parameters = {"sampling": {"temperature": 0.5}}
        session.add(MessageRow(id="a", content="So.", model="tiny", parameters=parameters, **answer))
        session.add(MessageRow(id="running", state="open", **answer))
    return Feedback(database)


def test_the_newest_judgement_of_an_author_holds_and_the_log_keeps_all(feedback: Feedback, database: Database) -> None:
    feedback.add("ada", "a", Judgement("up"))
    feedback.add("ada", "a", Judgement("correction", "too short", "Because of the light."))
    with database.read() as session:
        assert newest(session, "c") == {"a": Judgement("correction", "too short", "Because of the light.")}
        log = session.scalars(select(FeedbackRow).order_by(FeedbackRow.id)).all()
    assert [(row.verdict, row.model, row.parameters) for row in log] == [
        ("up", "tiny", {"sampling": {"temperature": 0.5}}),
        ("correction", "tiny", {"sampling": {"temperature": 0.5}}),
    ]


def test_a_judgement_can_be_taken_back(feedback: Feedback, database: Database) -> None:
    feedback.add("ada", "a", Judgement("down"))
    assert feedback.add("ada", "a", Judgement("none")) is None
    with database.read() as session:
        assert newest(session, "c") == {}


@pytest.mark.parametrize(("author", "message"), [("eve", "a"), ("ada", "q"), ("ada", "unknown")])
def test_only_ones_own_answers_are_judged(feedback: Feedback, author: str, message: str) -> None:
    with pytest.raises(NotFound):
        feedback.add(author, message, Judgement("up"))


def test_an_answer_that_is_being_written_is_not_judged(feedback: Feedback) -> None:
    with pytest.raises(Conflict, match="being written"):
        feedback.add("ada", "running", Judgement("up"))


def test_a_deleted_conversation_takes_no_judgement(feedback: Feedback, database: Database) -> None:
    with database.write() as session:
        session.get_one(ConversationRow, "c").deleted_ms = 3
    with pytest.raises(NotFound):
        feedback.add("ada", "a", Judgement("up"))


def test_a_judgement_that_fills_the_room_is_taken_and_one_byte_more_is_refused(
    feedback: Feedback, database: Database
) -> None:
    """Words were stored behind the bound of their user, too. They are counted as bytes: 海 has three."""
    stored = StoredBytes(database, 0, few_bytes=0)
    stored.max_bytes = stored.of("ada") + 5
    bounded = Feedback(database, stored.check)
    judgement = Judgement("down", "no", "海")
    assert bounded.add("ada", "a", judgement) == judgement
    for reason, better in (("not", "海"), ("no", "海x")):
        with pytest.raises(StorageFull):
            bounded.add("ada", "a", Judgement("down", reason, better))
    with database.read() as session:
        assert newest(session, "c") == {"a": judgement}
    stored.max_bytes -= 5
    assert bounded.add("ada", "a", Judgement("up")) == Judgement("up"), "a thumb has no words"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"verdict": "great"}, "verdict"),
        ({"verdict": ["up"]}, "verdict"),
        ({"verdict": "correction"}, "better"),
        ({"verdict": "correction", "better": "  "}, "better"),
        ({"verdict": "up", "better": "x"}, "better"),
        ({"verdict": "down", "reason": "x" * 2_001}, "reason"),
        ({"verdict": "down", "better": "x" * 11}, "better"),
        ({"verdict": "down", "reason": "\ud800"}, "reason"),
        ("up", ""),
    ],
)
def test_what_is_no_judgement_is_refused_by_field(raw: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_judgement(raw, max_chars=10)
    assert caught.value.field == field


def test_words_of_just_the_bound_are_taken() -> None:
    words = {"reason": "海" * 2_000, "better": "海" * 10}
    assert parse_judgement({"verdict": "down", **words}, max_chars=10) == Judgement("down", **words)


def test_a_reason_keeps_its_lines_and_is_as_the_database_gives_it_back() -> None:
    assert parse_judgement({"verdict": "flag", "reason": "a\0b\n c"}, max_chars=10) == Judgement("flag", "a\ufffdb\n c")
