"""A database of any earlier revision, with data in it, becomes one of this build: rows, rules and search survive.

On both kinds of database. Alembic's batch mode would lose CHECKs, triggers and rows of cascading tables without a word.
"""

from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from services.accounts.accounts import Accounts
from services.arena.battles import Battles
from services.arena.contestants import Contestant
from services.conversations.conversations import Conversations
from services.conversations.prompt import PromptLimits
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
    "0002": {
        "users": [
            {
                "id": "user-1", "name": "ada@example.org", "display_name": "Ada", "email": "ada@example.org",
                "password": "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA", "role": "admin", "group_name": "staff",
                "subject": "https://id.example.org 7", "disabled": False, "created_ms": 4, "seen_ms": 5,
            },
            {
                "id": "user-2", "name": "bob", "display_name": "", "email": "", "password": "", "role": "user",
                "group_name": "", "subject": None, "disabled": True, "created_ms": 4, "seen_ms": None,
            },
        ],
        "invitations": [
            {
                "digest": "i1", "role": "user", "group_name": "", "made_by": "ada@example.org", "created_ms": 4,
                "expires_ms": 9, "used_ms": 5, "used_by": "user-2",
            }
        ],
        "sessions": [
            {
                "digest": "s1", "user_id": "user-1", "browser": "Firefox on Linux", "address": "192.0.2.7",
                "created_ms": 5, "seen_ms": 6, "expires_ms": 9_999_999_999_999,
            }
        ],
    },
    "0003": {
        "conversations": [
            {
                "id": "b", "owner": "arena:user-1", "title": "Why?", "titled_by": "first_words", "model": "",
                "system": "", "settings": "{}", "folder": "Arena", "pinned": False, "source": "", "created_ms": 7,
                "updated_ms": 8,
            }
        ],
        "messages": [
            {
                "id": "b-0", "conversation_id": "b", "parent_id": None, "place": 0, "role": "user", "content": "Why?",
                "reasoning": "", "state": "finished", "code": "", "error": "", "model": "", "asked_by": "",
                "parameters": "{}", "usage": None, "extra": "{}", "hidden": False, "created_ms": 7,
            },
            *(
                {
                    "id": f"battle-b-0-{side}", "conversation_id": "b", "parent_id": "b-0", "place": place,
                    "role": "assistant", "content": "because", "reasoning": "", "state": "finished", "code": "stop",
                    "error": "", "model": model, "asked_by": "user-1", "parameters": "{}", "usage": None,
                    "extra": "{}", "hidden": False, "created_ms": 7,
                }
                for place, side, model in ((1, "left", "m"), (2, "right", "n"))
            ),
        ],
        "battles": [
            {
                "id": "b", "owner": "user-1", "conversation_id": "b", "left_id": "battle-b-0-left",
                "right_id": "battle-b-0-right", "left_model": "m", "right_model": "n",
                "left_parameters": '{"thinking": true}', "right_parameters": "{}", "vote": None, "created_ms": 7,
                "voted_ms": None,
            }
        ],
    },
}  # fmt: skip
BROKEN = [
    "UPDATE messages SET state = 'eaten' WHERE id = 'q'",
    "UPDATE messages SET role = 'owner' WHERE id = 'q'",
    "UPDATE messages SET parent_id = 'nowhere' WHERE id = 'a'",
    "UPDATE conversations SET titled_by = 'nobody' WHERE id = 'c'",
    "UPDATE feedback SET verdict = 'maybe'",
]
BROKEN_LATER = {
    "0002": [
        "UPDATE users SET role = 'owner' WHERE id = 'user-1'",
        "UPDATE users SET name = 'bob' WHERE id = 'user-1'",
        "UPDATE invitations SET role = 'owner'",
        "UPDATE sessions SET user_id = 'nobody'",
    ],
    "0003": ["UPDATE battles SET vote = 'neither'", "UPDATE battles SET left_id = 'nowhere'"],
}


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


@pytest.mark.parametrize("revision", [each for each in revisions()[:-1] if each >= "0002"])
def test_accounts_and_battles_of_an_earlier_revision_live_on(empty_database: Database, revision: str) -> None:
    migrate(empty_database, revision)
    fill(empty_database, revision)
    migrate(empty_database)
    accounts = Accounts(empty_database)
    ada, bob = (accounts.users.named(name) for name in ("ada@example.org", "bob"))
    assert (ada.role, ada.group, ada.disabled, ada.seen_ms) == ("admin", "staff", False, 5)
    assert (bob.role, bob.disabled, bob.seen_ms) == ("user", True, None)
    assert accounts.users.of_provider("https://id.example.org 7") == ada
    assert [each.browser for each in accounts.sessions.of_user(ada.id)] == ["Firefox on Linux"]
    if revision >= "0003":
        battle = Battles(empty_database, PromptLimits(1_000, 1_000)).vote("user-1", "b", "right")
        assert (battle.left, battle.right, battle.vote) == (
            Contestant("m", {"thinking": True}),
            Contestant("n"),
            "right",
        )


@pytest.mark.parametrize("revision", revisions()[:-1])
def test_rules_cascades_and_search_work_after_a_migration(empty_database: Database, revision: str) -> None:
    migrate(empty_database, revision)
    fill(empty_database, revision)
    migrate(empty_database)
    for statement in BROKEN + [each for name, later in BROKEN_LATER.items() if name <= revision for each in later]:
        with pytest.raises(IntegrityError), empty_database.write() as session:
            session.execute(text(statement))
    search = Search(empty_database)
    assert [hit.message_id for query in ("DEEP", "海") for hit in search.find("ada", query)] == ["q", "a"]
    with empty_database.write() as session:
        session.execute(text("UPDATE messages SET content = 'how wide is the lake?' WHERE id = 'q'"))
    assert search.find("ada", "deep") == [] and [hit.message_id for hit in search.find("ada", "lake")] == ["q"]
    with empty_database.write() as session:
        session.execute(text("DELETE FROM conversations"))
        session.execute(text("DELETE FROM users"))
        assert set(session.scalars(text("SELECT used_by FROM invitations"))) <= {None}
        for table in ("messages", "feedback", "battles", "sessions"):
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
