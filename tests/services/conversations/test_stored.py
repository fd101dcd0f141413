"""What a user stores is counted by the database, bounded, and told; answers are never what is refused."""

import json
import uuid
from typing import Any

import pytest
from sqlalchemy import select, text

from services.arena.battles import Battles
from services.arena.contestants import Contestant
from services.chat.requests import Requests
from services.conversations.asking import Ask, Asker, parse_ask
from services.conversations.conversations import Conversations
from services.conversations.imports import Importer
from services.conversations.prompt import PromptLimits
from services.conversations.reading import read
from services.conversations.stored import StoredBytes
from services.conversations.tables import ConversationRow
from services.database.calls import at_once
from services.database.database import Database
from services.errors import StorageFull, Unavailable
from tests.services.arena.database import finish
from tests.services.conversations.test_exchange import file_of, ours

LIMITS = PromptLimits(1_000, 10_000)
FLOOR = 1024  # of each conversation
MESSAGE = "content, reasoning, error, extra, parameters"  # the columns that count
BOUND = FLOOR + 400


@pytest.fixture
def stored(database: Database) -> StoredBytes:
    return StoredBytes(database, BOUND, few_bytes=0)


@pytest.fixture
def asker(database: Database, requests: Requests, stored: StoredBytes) -> Asker:
    return Asker(database, requests, LIMITS, at_once, stored)


def ask(rid: str, content: str, conversation: str = "c", **fields: Any) -> Ask:
    question = {"id": f"q-{rid}", "content": content}
    raw = {"conversation": conversation, "id": rid, "parent": None, "model": "echo", "question": question, **fields}
    return parse_ask(raw, max_chars=1_000)


def really(database: Database) -> dict[str, int]:
    """Conversation → its bytes and those of its messages, read anew."""
    sizes = dict[str, int]()
    with database.read() as session:
        for cid in session.scalars(select(ConversationRow.id)):
            of_messages = (
                "SELECT content, reasoning, error, extra, parameters FROM messages WHERE conversation_id = :cid"
            )
            its_own = "SELECT title, folder, system, settings FROM conversations WHERE id = :cid"
            sizes[cid] = FLOOR + sum(
                len((value if isinstance(value, str) else json.dumps(value)).encode())
                for query in (of_messages, its_own)
                for row in session.execute(text(query), {"cid": cid})
                for value in row
            )
    return sizes


def counted(database: Database) -> dict[str, int]:
    with database.read() as session:
        return dict(session.execute(select(ConversationRow.id, ConversationRow.num_bytes)).all())


def test_the_database_counts_what_is_asked_answered_changed_and_deleted(
    asker: Asker, database: Database, stored: StoredBytes
) -> None:
    stored.max_bytes = 10 * BOUND
    asker.ask("ada", ask("a1", "wie tief ist das Meer? 海"))
    finish(database, "a1", "sehr tief ✓")
    asker.ask("ada", ask("a2", "and the lake?", "d"))
    assert counted(database) == really(database) and min(counted(database).values()) > 10
    with database.write() as session:
        session.execute(text("UPDATE messages SET reasoning = 'hm', state = 'open' WHERE id = 'a1'"))
        session.execute(text("DELETE FROM messages WHERE id = 'a2'"))
    assert counted(database) == really(database)
    with database.write() as session:
        session.execute(text("DELETE FROM conversations WHERE id = 'c'"))
    assert counted(database) == really(database) and set(counted(database)) == {"d"}


def test_what_a_conversation_says_of_itself_is_counted(database: Database, conversations: Conversations) -> None:
    conversations.create("ada", "c", {"title": "海", "system": "be kind", "folder": "work"})
    conversations.create("ada", "d", {})
    assert counted(database) == really(database) and counted(database)["d"] > FLOOR
    conversations.edit("ada", "c", {"system": "x" * 500, "title": "Sea", "settings": {"thinking": True}, "folder": ""})
    assert counted(database) == really(database) and counted(database)["c"] > FLOOR + 500


def test_the_sum_reads_the_index_alone(database: Database) -> None:
    """It is asked for inside the lock of each question: it must not read rows, in which texts stand."""
    if not database.is_sqlite:
        pytest.skip("PostgreSQL plans by the size of its tables")
    query = "SELECT sum(num_bytes) FROM conversations WHERE owner IN ('ada', 'arena:ada') AND deleted_ms IS NULL"
    with database.read() as session:
        plan = str(session.execute(text(f"EXPLAIN QUERY PLAN {query}")).all())
    assert "USING COVERING INDEX ix_conversations_bytes" in plan


def test_a_question_for_which_there_is_no_room_is_refused_with_the_numbers_and_leaves_nothing(
    asker: Asker, conversations: Conversations, stored: StoredBytes
) -> None:
    asker.ask("ada", ask("a1", "x" * 300))
    before = stored.of("ada")
    with pytest.raises(StorageFull, match=r"0\.0 MiB, of 0 MiB .*MAX_USER_CONVERSATIONS_MIB") as refused:
        asker.ask("ada", ask("a2", "x" * 200, "d"))
    assert refused.value.remedy and stored.of("ada") == before and conversations.ids("ada") == ["c"]
    asker.ask("eve", ask("a3", "x" * 200, "e"))
    conversations.delete("ada", "c")
    assert stored.of("ada") == 0
    asker.ask("ada", ask("a2", "x" * 200, "d"))


def test_what_was_asked_before_goes_on_and_its_answer_may_pass_the_bound(
    asker: Asker, database: Database, stored: StoredBytes
) -> None:
    asker.ask("ada", ask("a1", "x" * 300))
    finish(database, "a1", "y" * 1_000)
    assert stored.of("ada") > BOUND
    assert asker.ask("ada", ask("a1", "x" * 300)).rid == "a1", "the same again is no new question"
    with pytest.raises(StorageFull):
        asker.ask("ada", ask("a2", "x"))


def test_a_full_disk_refuses_new_questions_and_lets_answers_in(
    database: Database, requests: Requests, conversations: Conversations
) -> None:
    if not database.is_sqlite:
        pytest.skip("the disk of PostgreSQL is not known")
    asker = Asker(database, requests, LIMITS, at_once, StoredBytes(database, BOUND, few_bytes=0))
    first = asker.ask("ada", ask("a1", "one"))
    full = Asker(database, requests, LIMITS, at_once, StoredBytes(database, BOUND, few_bytes=1 << 60))
    with pytest.raises(Unavailable, match="is full: free") as refused:
        full.ask("ada", ask("a2", "two", parent="a1"))
    assert refused.value.retry_after_s and "make room" in refused.value.remedy
    assert full.ask("ada", ask("a1", "one")) == first
    finish(database, "a1", "whole")
    assert [row.content for row in conversations.find("ada", "c").messages] == ["one", "whole"]


def test_behind_the_bound_nothing_grows_and_what_is_there_can_be_seen_and_made_smaller(
    database: Database, stored: StoredBytes, conversations: Conversations
) -> None:
    conversations.create("ada", "c", {"system": "x" * 300})
    conversations.create("ada", "gone", {})
    conversations.delete("ada", "gone")
    bounded = Conversations(database, stored.check)
    for grows in (
        lambda: bounded.create("ada", "d", {}),
        lambda: bounded.edit("ada", "c", {"system": "x" * 900}),
        lambda: bounded.restore("ada", "gone"),
    ):
        with pytest.raises(StorageFull):
            grows()
    assert conversations.ids("ada") == ["c"] and conversations.find("ada", "c").as_dict()["system"] == "x" * 300
    stored.max_bytes = 1
    assert not bounded.create("ada", "c", {})[1]
    assert bounded.edit("ada", "c", {"system": "short", "pinned": True})["pinned"]


def test_a_battle_counts_for_its_user_before_the_vote(database: Database, stored: StoredBytes) -> None:
    battles = Battles(database, LIMITS, stored)
    battles.start("ada", "b1", "x" * 300, (Contestant("m"), Contestant("n")))
    assert stored.of("ada") >= 300
    with pytest.raises(StorageFull):
        battles.start("ada", "b2", "x" * 300, (Contestant("m"), Contestant("n")))
    assert battles.start("ada", "b1", "x" * 300, (Contestant("m"), Contestant("n"))).id == "b1"


def test_of_an_import_what_has_no_room_is_told_and_the_rest_is_there(
    database: Database, stored: StoredBytes, conversations: Conversations
) -> None:
    def conversation(size: int) -> dict[str, Any]:
        cid = uuid.uuid4().hex
        message = {"id": f"q-{cid}", "parent_id": None, "role": "user", "content": "x" * size, "created_ms": 1}
        return {"id": cid, "title": f"of {size}", "created_ms": 1, "updated_ms": 1, "messages": [message]}

    importer = Importer(database, lambda rid, owner: False, stored)
    told = importer.take("ada", read(file_of(ours(conversation(200), conversation(300), conversation(100)))))
    assert told["imported"] == 2
    (skipped,) = told["skipped"]
    assert skipped["title"] == "of 300" and "MiB" in skipped["reason"]
    assert len(conversations.ids("ada")) == 2
