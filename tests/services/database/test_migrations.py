"""A database of any earlier revision, with data in it, becomes one of this build: rows, rules and search survive.

On both kinds of database. Alembic's batch mode would lose CHECKs, triggers and rows of cascading tables without a word.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from services.accounts.groups import Group, Groups
from services.accounts.invitations import Invitations
from services.accounts.sessions import Sessions, digest_of
from services.accounts.users import Users
from services.arena.battles import SIDES, Battles
from services.conversations.conversations import Conversations
from services.conversations.prompt import PromptLimits
from services.conversations.search import Search
from services.database.database import Database
from services.database.schema import migrate, migrate_when_there, revisions, version
from services.errors import ConfigurationError
from tests.postgres import PostgresServer

DIGEST = digest_of("a browser's secret")
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
                "id": "user-1", "name": "ada", "display_name": "Ada", "email": "", "password": "$argon2id$…",
                "role": "admin", "group_name": "staff", "subject": None, "disabled": False, "created_ms": 1,
                "seen_ms": 4,
            },
            {
                "id": "user-2", "name": "bob", "display_name": "", "email": "bob@example.org", "password": "",
                "role": "user", "group_name": "", "subject": "https://id.example.org 7", "disabled": True,
                "created_ms": 2, "seen_ms": None,
            },
        ],
        "invitations": [
            {
                "digest": "opened", "role": "user", "group_name": "", "made_by": "user-1", "created_ms": 1,
                "expires_ms": 9_000_000_000_000, "used_ms": 2, "used_by": "user-2",
            },
            {
                "digest": "waiting", "role": "admin", "group_name": "staff", "made_by": "user-1", "created_ms": 3,
                "expires_ms": 9_000_000_000_000, "used_ms": None, "used_by": None,
            },
        ],
        "sessions": [
            {
                "digest": DIGEST, "user_id": "user-1", "browser": "Firefox on Linux", "address": "192.0.2.1",
                "created_ms": 4, "seen_ms": 9_000_000_000_000, "expires_ms": 9_000_000_000_000,
            }
        ],
    },
    "0003": {
        "conversations": [
            {
                "id": "b", "owner": "arena:ada", "title": "Why?", "titled_by": "first_words", "model": "", "system": "",
                "settings": "{}", "folder": "Arena", "pinned": False, "source": "", "created_ms": 5, "updated_ms": 5,
            }
        ],
        "messages": [
            {
                "id": "b-0", "conversation_id": "b", "parent_id": None, "place": 0, "role": "user", "content": "why?",
                "reasoning": "", "state": "finished", "code": "", "error": "", "model": "", "asked_by": "",
                "parameters": "{}", "usage": None, "extra": "{}", "hidden": False, "created_ms": 5,
            },
            *(
                {
                    "id": f"battle-b-0-{side}", "conversation_id": "b", "parent_id": "b-0", "place": place,
                    "role": "assistant", "content": f"so says the {side}", "reasoning": "", "state": "finished",
                    "code": "stop", "error": "", "model": model, "asked_by": "ada", "parameters": "{}", "usage": None,
                    "extra": "{}", "hidden": False, "created_ms": 5,
                }
                for place, side, model in ((1, "left", "m"), (2, "right", "n"))
            ),
        ],
        "battles": [
            {
                "id": "b", "owner": "ada", "conversation_id": "b", "left_id": "battle-b-0-left",
                "right_id": "battle-b-0-right", "left_model": "m", "right_model": "n", "left_parameters": "{}",
                "right_parameters": '{"thinking": true}', "vote": None, "created_ms": 5, "voted_ms": None,
            }
        ],
    },
    "0004": {
        "invitations": [
            {
                "digest": "too late", "role": "user", "group_name": "guests", "made_by": "user-1", "created_ms": 6,
                "expires_ms": 7, "used_ms": None, "used_by": None,
            }
        ]
    },
    "0005": {
        "user_groups": [
            {"name": "guests", "tokens_per_day": 5, "in_flight": None, "weight": 0.5, "created_ms": 6},
            {"name": "staff", "tokens_per_day": None, "in_flight": None, "weight": None, "created_ms": 7},
        ]
    },
}  # fmt: skip
BROKEN = [
    "UPDATE messages SET state = 'eaten' WHERE id = 'q'",
    "UPDATE messages SET role = 'owner' WHERE id = 'q'",
    "UPDATE messages SET parent_id = 'nowhere' WHERE id = 'a'",
    "UPDATE conversations SET titled_by = 'nobody' WHERE id = 'c'",
    "UPDATE feedback SET verdict = 'maybe'",
]
# How web processes of the build before 0006 write both tables in one transaction: in either order.
WRITERS = {
    "the archivist": (
        "UPDATE messages SET content = content || ', sehr', state = 'finished' WHERE id = 'a'",
        "UPDATE conversations SET updated_ms = 9 WHERE id = 'c'",
    ),
    "a question": (
        "SELECT id FROM conversations WHERE id = 'c' FOR UPDATE",
        'INSERT INTO messages SELECT (jsonb_populate_record(m, \'{"id": "q2", "place": 2}\')).* FROM messages m '
        "WHERE id = 'q'",
    ),
    "a refused question": ("UPDATE messages SET error = 'the queue is full' WHERE id = 'a'", "SELECT 1"),
}
LOOKED_S = 1.2  # by then who waits for a lock of PostgreSQL has looked for a deadlock, and looks no more


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
        session.execute(text("DELETE FROM conversations"))
        for table in ("messages", "feedback", "battles"):
            assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 0


@pytest.mark.parametrize("revision", [each for each in revisions()[:-1] if each >= "0002"])
def test_accounts_of_an_earlier_revision_live_on(empty_database: Database, revision: str) -> None:
    migrate(empty_database, revision)
    fill(empty_database, revision)
    migrate(empty_database)
    users, sessions = Users(empty_database), Sessions(empty_database)
    ada, bob = users.list()
    assert sessions.user_of("a browser's secret") == ada and ada.is_admin and (ada.group, ada.seen_ms) == ("staff", 4)
    assert bob.disabled and (bob.email, bob.seen_ms) == ("bob@example.org", None)
    (invitation,) = Invitations(empty_database, users).open()
    assert (invitation.role, invitation.group, invitation.made_by) == ("admin", "staff", "user-1")
    for statement in ("UPDATE users SET role = 'owner'", "UPDATE users SET name = 'ada'"):
        with pytest.raises(IntegrityError), empty_database.write() as session:
            session.execute(text(statement))
    with empty_database.write() as session:
        session.execute(text("DELETE FROM users"))
        used = session.execute(text("SELECT used_ms, used_by FROM invitations WHERE digest = 'opened'")).one()
        assert session.scalar(text("SELECT count(*) FROM sessions")) == 0 and tuple(used) == (2, None)


@pytest.mark.parametrize("revision", [each for each in revisions()[:-1] if each >= "0003"])
def test_a_battle_of_an_earlier_revision_gets_its_vote(empty_database: Database, revision: str) -> None:
    migrate(empty_database, revision)
    fill(empty_database, revision)
    migrate(empty_database)
    with pytest.raises(IntegrityError), empty_database.write() as session:
        session.execute(text("UPDATE battles SET vote = 'nobody'"))
    battle = Battles(empty_database, PromptLimits(1_000, 10_000)).vote("ada", "b", "right")
    (asked,) = battle.rounds
    assert (asked.question, asked.left.content, asked.right.content) == (
        "why?",
        *(f"so says the {side}" for side in SIDES),
    )
    assert (battle.left.model, battle.right.model, battle.right.parameters) == ("m", "n", {"thinking": True})
    assert Conversations(empty_database).find("ada", "b").as_dict()["current_id"] == "battle-b-0-right"


@pytest.mark.parametrize("revision", [each for each in revisions()[:-1] if each >= "0002"])
def test_a_group_that_was_a_word_becomes_a_group_without_limits(empty_database: Database, revision: str) -> None:
    migrate(empty_database, revision)
    fill(empty_database, revision)
    migrate(empty_database)
    groups, users = Groups(empty_database), Users(empty_database)
    named = ["staff"] if revision < "0004" else ["guests", "staff"]
    assert [group.name for group in groups.list()] == named
    assert groups.list()[-1] == Group("staff", {}, 1) and groups.limits_of_members() == {}
    if revision == "0005":
        assert groups.list()[0].limits == {"tokens_per_day": 5, "weight": 0.5}
    groups.set("staff", weight=3)
    assert groups.limits_of_members() == {"user-1": {"weight": 3}}
    assert users.change("user-2", group="staff").group == "staff"
    for column, wrong in (("weight", 0.05), ("tokens_per_day", -1), ("in_flight", -1)):
        with pytest.raises(IntegrityError), empty_database.write() as session:
            session.execute(text(f"UPDATE user_groups SET {column} = {wrong}"))


@pytest.mark.parametrize("revision", revisions()[:-1])
def test_the_bytes_of_an_earlier_revisions_messages_are_counted(empty_database: Database, revision: str) -> None:
    migrate(empty_database, revision)
    fill(empty_database, revision)
    migrate(empty_database)
    (conversation,), (question, answer) = ROWS["0001"]["conversations"], ROWS["0001"]["messages"]
    own = 1024 + sum(len(conversation[column].encode()) for column in ("title", "folder", "system", "settings"))
    columns = ("content", "reasoning", "error", "extra", "parameters")
    size = own + sum(len(row[column].encode()) for row in (question, answer) for column in columns)

    def counted() -> int:
        with empty_database.read() as session:
            return int(session.execute(text("SELECT num_bytes FROM conversations WHERE id = 'c'")).scalar_one())

    assert counted() == size
    with empty_database.write() as session:
        session.execute(text("UPDATE messages SET content = content || '海' WHERE id = 'a'"))
    assert counted() == size + len("海".encode())
    with empty_database.write() as session:
        session.execute(text("DELETE FROM messages WHERE id = 'a'"))
    assert counted() == own + sum(len(question[column].encode()) for column in columns)


@pytest.fixture
def of_the_build_before_0006(postgres_server: PostgresServer) -> Iterator[Database]:
    """On PostgreSQL, where several write at once, with rows."""
    name = f"t{uuid.uuid4().hex[:12]}"
    database = Database(postgres_server.create(name))
    migrate(database, "0005")
    fill(database, "0005")
    yield database
    database.close()
    postgres_server.drop(name)


@pytest.mark.parametrize("writer", WRITERS)
def test_who_writes_while_bytes_begin_to_be_counted_is_not_ended_and_is_counted(
    of_the_build_before_0006: Database, writer: str, eventually: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web process of the build before wrote the two tables that the migration locks: PostgreSQL ended one of the
    two, or what was written between the counting and the triggers was never counted."""
    database, said = of_the_build_before_0006, list[str]()
    monkeypatch.setattr("services.database.schema.PAUSE_S", 0.0)
    migration = threading.Thread(target=lambda: migrate_when_there(database, said.append))
    first, second = WRITERS[writer]
    plain = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as other, psycopg.connect(plain, autocommit=True) as onlooker:
        other.execute(first.encode())
        migration.start()
        try:
            eventually(lambda: said or waited_s(onlooker) > LOOKED_S, "the migration waits for the writer")
            eventually(lambda: waited_s(onlooker) > 0, "it waits again")
            other.execute(second.encode())
            other.commit()
        finally:
            other.close()
            migration.join()
    with database.read() as session:
        of_messages = " + ".join(f"octet_length({each}::text)" for each in OF_MESSAGE)
        own = " + ".join(f"octet_length({each}::text)" for each in ("title", "folder", "system", "settings"))
        sums = f"(SELECT sum({of_messages}) FROM messages WHERE conversation_id = c.id)"
        counted, really = session.execute(
            text(f"SELECT num_bytes, 1024 + {own} + {sums} FROM conversations c WHERE id = 'c'")
        ).one()
    assert counted == really


OF_MESSAGE = ("content", "reasoning", "error", "extra", "parameters")


def waited_s(connection: psycopg.Connection) -> float:
    """How long another of this database has been waiting for a lock; 0 where none waits."""
    since = "SELECT max(extract(epoch FROM clock_timestamp() - query_start)) FROM pg_stat_activity"
    found = connection.execute(f"{since} WHERE datname = current_database() AND wait_event_type = 'Lock'".encode())
    return float((found.fetchone() or [0])[0] or 0)


def test_every_revision_but_the_newest_has_its_rows_here() -> None:
    assert ROWS.keys() >= set(revisions()[:-1]) and all(ROWS.values())


def test_every_index_of_the_tables_is_there(database: Database) -> None:
    found = {
        index["name"] for name in ("conversations", "messages") for index in inspect(database.engine).get_indexes(name)
    }
    wanted = {
        "ix_conversations_owner",
        "ix_conversations_bytes",
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
