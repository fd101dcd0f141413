"""A database of any earlier revision, with data in it, becomes one of this build: rows, rules and search survive.

On both kinds of database. Alembic's batch mode would lose CHECKs, triggers and rows of cascading tables without a word.
"""

from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from services.conversations.conversations import Conversations
from services.conversations.search import Search
from services.database.database import Database
from services.database.schema import migrate, migrate_when_there, revisions, version
from services.errors import ConfigurationError

# What each revision had when it was the newest: rows as its build wrote them, in its own columns. Never edited.
ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "0001": {
        "conversations": [
            {
                "id": "c", "owner": "ada", "title": "Sea", "titled_by": "user", "model": "m", "system": "be kind",
                "settings": '{"thinking": true}', "folder": "work", "pinned": True, "source": "", "created_ms": 1,
                "updated_ms": 2,
            }
        ],
        "messages": [
            {
                "id": "q", "conversation_id": "c", "parent_id": None, "place": 0, "role": "user",
                "content": "how deep is the sea?", "reasoning": "", "state": "finished", "code": "", "error": "",
                "model": "", "asked_by": "", "parameters": "{}", "usage": None, "extra": "{}", "hidden": False,
                "created_ms": 1,
            },
            {
                "id": "a", "conversation_id": "c", "parent_id": "q", "place": 1, "role": "assistant",
                "content": "海很深", "reasoning": "hm", "state": "finished", "code": "stop", "error": "", "model": "m",
                "asked_by": "ada", "parameters": '{"sampling": {"seed": 7}}', "usage": '{"completion_tokens": 3}',
                "extra": "{}", "hidden": False, "created_ms": 2,
            },
        ],
        "feedback": [
            {
                "message_id": "a", "author": "ada", "verdict": "up", "reason": "", "better": "", "model": "m",
                "parameters": "{}", "created_ms": 3,
            }
        ],
    },
    "0002": {},
    "0003": {},
}  # fmt: skip
BROKEN = [
    "UPDATE messages SET state = 'eaten' WHERE id = 'q'",
    "UPDATE messages SET role = 'owner' WHERE id = 'q'",
    "UPDATE messages SET parent_id = 'nowhere' WHERE id = 'a'",
    "UPDATE conversations SET titled_by = 'nobody' WHERE id = 'c'",
    "UPDATE feedback SET verdict = 'maybe'",
]


def fill(database: Database, revision: str) -> None:
    """The rows of all revisions up to this one."""
    with database.write() as session:
        for name in revisions()[: revisions().index(revision) + 1]:
            for table, rows in ROWS.get(name, {}).items():
                for row in rows:
                    columns, values = ", ".join(row), ", ".join(f":{column}" for column in row)
                    session.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row)


@pytest.mark.parametrize("revision", revisions()[:-1])
def test_data_of_an_earlier_revision_live_on(empty_database: Database, revision: str) -> None:
    migrate(empty_database, revision)
    fill(empty_database, revision)
    migrate(empty_database)
    with empty_database.read() as session:
        assert version(session.connection()) == revisions()[-1]
    tree = Conversations(empty_database).find("ada", "c").as_dict()
    assert (tree["title"], tree["settings"], tree["pinned"]) == ("Sea", {"thinking": True}, True)
    question, answer = tree["messages"]
    assert (answer["parent_id"], answer["content"], answer["parameters"]) == ("q", "海很深", {"sampling": {"seed": 7}})
    assert answer["feedback"] == {"verdict": "up", "reason": "", "better": ""} and question["feedback"] is None


@pytest.mark.parametrize("revision", revisions()[:-1])
def test_rules_cascades_and_search_work_after_a_migration(empty_database: Database, revision: str) -> None:
    migrate(empty_database, revision)
    fill(empty_database, revision)
    migrate(empty_database)
    for statement in BROKEN:
        with pytest.raises(IntegrityError), empty_database.write() as session:
            session.execute(text(statement))
    search = Search(empty_database)
    assert [hit.message_id for query in ("DEEP", "海") for hit in search.find("ada", query)] == ["q", "a"]
    with empty_database.write() as session:
        session.execute(text("UPDATE messages SET content = 'how wide is the lake?' WHERE id = 'q'"))
    assert search.find("ada", "deep") == [] and [hit.message_id for hit in search.find("ada", "lake")] == ["q"]
    with empty_database.write() as session:
        session.execute(text("DELETE FROM conversations WHERE id = 'c'"))
        for table in ("messages", "feedback"):
            assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_every_index_of_the_tables_is_there(database: Database) -> None:
    found = {
        index["name"] for name in ("conversations", "messages") for index in inspect(database.engine).get_indexes(name)
    }
    wanted = {
        "ix_conversations_owner",
        "ix_conversations_deleted",
        "ix_messages_conversation_id",
        "ix_messages_unfinished",
    }
    assert wanted <= found


def test_a_database_of_a_newer_build_is_left_alone(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="9999"):
        migrate(database)


def test_who_waits_for_a_database_says_so_once_and_goes_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Database("postgresql://nobody:secret@127.0.0.1:1/none")
    said: list[str] = []
    monkeypatch.setattr("services.database.schema.PAUSE_S", 0.0)
    attempts = iter([away, away, database])
    monkeypatch.setattr("services.database.schema.migrate", lambda _: migrate(next(attempts)))
    assert migrate_when_there(database, said.append)
    assert len(said) == 2 and "waiting for the database" in said[0] and "answers" in said[1]
    assert "secret" not in str(said)
