"""A question is stored before it is queued, once, under its parent."""

from typing import Any

import pytest
from redis import Redis

from services.chat.requests import Requests
from services.conversations.asking import Ask, Asker, parse_ask
from services.conversations.conversations import Conversations
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, NotFound, UnknownModel


def ask(rid: str, content: str = "", **fields: Any) -> Ask:
    raw = {"conversation": "c", "id": rid, "parent": None, "model": "echo", **fields}
    if content:
        raw["question"] = {"id": f"q-{rid}", "content": content}
    return parse_ask(raw, max_chars=1_000)


def rows(conversations: Conversations) -> dict[str, MessageRow]:
    return {row.id: row for row in conversations.find("ada", "c").messages}


def test_the_first_question_makes_its_conversation_its_row_and_its_answers(
    asker: Asker, conversations: Conversations, requests: Requests
) -> None:
    asked = asker.ask("ada", ask("a1", "What is  a\nsea?", sampling={"seed": 7}, system="be kind"))
    assert asked.request is not None and requests.journal.head("a1") is not None
    assert [message.content for message in asked.request.messages] == ["be kind", "What is  a\nsea?"]
    assert asked.request.sampling.seed == 7
    tree = conversations.find("ada", "c")
    assert (tree.conversation.title, tree.conversation.titled_by) == ("What is a", "first_words")
    assert (tree.conversation.current_id, tree.conversation.model) == ("a1", "echo")
    question, answer = tree.messages
    assert (question.id, question.parent_id, question.state) == ("q-a1", None, "finished")
    assert (answer.id, answer.parent_id, answer.state, answer.parameters) == (
        "a1",
        "q-a1",
        "open",
        {"sampling": {"seed": 7}},
    )
    assert tree.running and tree.as_dict()["messages"][1]["feedback"] is None


def test_the_same_ask_again_changes_nothing(asker: Asker, conversations: Conversations) -> None:
    first = asker.ask("ada", ask("a1", "one"))
    assert asker.ask("ada", ask("a1", "one")) == first
    assert list(rows(conversations)) == ["q-a1", "a1"]


def test_an_answer_is_of_whoever_the_queue_accepted_it_for(
    asker: Asker, conversations: Conversations, requests: Requests, database: Database, redis_client: Redis
) -> None:
    """Refused, then asked again after signing in: the archivist looked for the former visitor's request."""
    with pytest.raises(UnknownModel):
        asker.ask("anon-1", ask("a1", "one", model="gone"))
    with database.write() as session:
        session.get_one(ConversationRow, "c").owner = "ada"
    redis_client.sadd(requests.keys.models, "gone")
    asker.ask("ada", ask("a1", "one", model="gone"))
    head = requests.journal.head("a1")
    assert head is not None and rows(conversations)["a1"].asked_by == head.user == "ada"


def test_another_ask_under_a_known_id_is_a_conflict(asker: Asker) -> None:
    asker.ask("ada", ask("a1", "one"))
    for other in (ask("a1", "two"), ask("a1", "one", model="other"), ask("a1", "one", conversation="d")):
        with pytest.raises(Conflict):
            asker.ask("ada", other)
    with pytest.raises(Conflict, match="q-a1"):
        asker.ask("ada", parse_ask({**RAW, "question": {"id": "q-a1", "content": "two"}}, max_chars=9))


RAW = {"conversation": "c", "id": "a2", "parent": None, "model": "echo"}


def test_another_owners_conversation_is_unknown(asker: Asker) -> None:
    asker.ask("ada", ask("a1", "one"))
    with pytest.raises(NotFound):
        asker.ask("eve", ask("a2", "two"))


def test_a_second_version_of_an_answer_stands_beside_the_first(asker: Asker, conversations: Conversations) -> None:
    asker.ask("ada", ask("a1", "one"))
    asker.ask("ada", ask("a2", parent="q-a1"))
    found = rows(conversations)
    assert found["a1"].parent_id == found["a2"].parent_id == "q-a1"
    assert conversations.find("ada", "c").conversation.current_id == "a2"


def test_a_parent_that_is_not_there_is_said_so(asker: Asker, conversations: Conversations) -> None:
    with pytest.raises(NotFound, match="no message 'nowhere'"):
        asker.ask("ada", ask("a1", "one", parent="nowhere"))
    with pytest.raises(NotFound):
        conversations.find("ada", "c")
    asker.ask("ada", ask("a1", "one"))
    with pytest.raises(NotFound, match="no user 'a1'"):
        asker.ask("ada", ask("a2", parent="a1"))


def test_what_the_queue_refuses_is_kept_unsent_until_it_is_asked_again(
    asker: Asker, conversations: Conversations, requests: Requests, redis_client: Any
) -> None:
    with pytest.raises(UnknownModel):
        asker.ask("ada", ask("a1", "one", model="later"))
    kept = rows(conversations)["a1"]
    assert (kept.state, kept.code) == ("unsent", "unknown_model") and "later" in kept.error
    redis_client.sadd(requests.keys.models, "later")
    asker.ask("ada", ask("a1", "one", model="later"))
    opened = rows(conversations)["a1"]
    assert (opened.state, opened.code, opened.error) == ("open", "", "")


def test_what_no_request_can_hold_leaves_no_row(asker: Asker, conversations: Conversations) -> None:
    with pytest.raises(InvalidRequest, match="1001 characters; the limit is 1000"):
        asker.ask("ada", ask("a1", "x" * 998, system="sys"))
    with pytest.raises(NotFound):
        conversations.find("ada", "c")


def finish(database: Any, rid: str, content: str, state: str = "finished", reasoning: str = "") -> None:
    with database.write() as session:
        row = session.get(MessageRow, rid)
        row.content, row.state, row.reasoning = content, state, reasoning


def test_an_answer_is_carried_on_by_a_version_that_begins_with_it(asker: Asker, database: Any) -> None:
    asker.ask("ada", ask("a1", "one"))
    finish(database, "a1", "The sea", "cancelled", "hm")
    asked = asker.ask("ada", ask("a2", parent="q-a1", continues="a1"))
    assert asked.request is not None and asked.request.continue_final
    last = asked.request.messages[-1]
    assert (last.role, last.content, last.reasoning) == ("assistant", "The sea", "hm")
    with database.read() as session:
        assert session.get(MessageRow, "a2").content == "The sea"
    with pytest.raises(InvalidRequest, match="no answer to this question"):
        asker.ask("ada", ask("a3", "two", parent="a1", continues="a1"))


def test_the_prompt_is_the_branch_of_the_question(asker: Asker, database: Any) -> None:
    asker.ask("ada", ask("a1", "one"))
    finish(database, "a1", "1")
    asker.ask("ada", ask("b1", parent="q-a1"))
    finish(database, "b1", "uno")
    asked = asker.ask("ada", ask("a2", "two", parent="b1"))
    assert asked.request is not None
    assert [message.content for message in asked.request.messages] == ["one", "uno", "two"]


def test_an_answer_that_has_ended_is_not_asked_for_again(asker: Asker, database: Any) -> None:
    asker.ask("ada", ask("a1", "one"))
    finish(database, "a1", "1")
    assert asker.ask("ada", ask("a1", "one")).request is None


def test_a_text_with_a_null_character_is_stored_and_asked_again(asker: Asker, conversations: Conversations) -> None:
    asker.ask("ada", ask("a1", "nul \0 here"))
    assert rows(conversations)["q-a1"].content == "nul \ufffd here"
    asker.ask("ada", ask("a1", "nul \0 here"))


@pytest.mark.parametrize(
    "fields",
    [
        {"conversation": "a/b"},
        {"id": ""},
        {"model": 3},
        {"question": {"id": "q", "content": " "}},
        {"question": {"content": "no id"}},
        {"question": {"id": "q", "content": "\ud800"}},
        {"sampling": {"warmth": 1}},
        {"system": 3},
        {"unknown": 1},
        {},
    ],
)
def test_what_is_no_ask_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        parse_ask({**RAW, **fields}, max_chars=100)


def test_a_text_that_is_carried_on_has_room_beside_the_rounds(asker: Asker, conversations: Conversations) -> None:
    for number in range(4):
        asker.ask("ada", ask(f"a{number}", "q" * 140, parent=f"a{number - 1}" if number else None))
        with conversations._database.write() as session:
            row = session.get_one(MessageRow, f"a{number}")
            row.state, row.content = "finished", "x" * 120
    asked = asker.ask("ada", ask("more", parent="q-a3", continues="a3"))
    assert asked.request is not None and asked.omitted == 2
    assert asked.request.messages[-1].content == "x" * 120
    (kept,) = (each for each in conversations.find("ada", "c").messages if each.id == "more")
    assert kept.extra == {"continues": "a3", "omitted": 2}, "the page marks where the model began to read"


def test_an_answer_with_its_questions_id_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"question\.id"):
        parse_ask(
            {"conversation": "c", "id": "a", "model": "echo", "question": {"id": "a", "content": "?"}}, max_chars=9
        )
