"""The schema after all migrations is the one that the tables of our rooms describe."""

import pytest
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from services.accounts import tables as accounts
from services.arena import tables as arena
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.database.schema import FOLDER, migrate, revisions, version
from services.database.tables import Table


def test_migrations_lead_to_the_tables_of_the_rooms(database: Database) -> None:
    found = inspect(database.engine)
    assert {accounts.UserRow.__tablename__, arena.BattleRow.__tablename__} <= set(found.get_table_names())
    for table in Table.metadata.sorted_tables:
        columns = {column["name"]: column for column in found.get_columns(table.name)}
        assert set(columns) == set(table.columns.keys())
        assert {n for n, c in columns.items() if c["nullable"]} == {c.name for c in table.columns if c.nullable}
        checks = {check["name"] for check in found.get_check_constraints(table.name)}
        assert checks >= {str(c.name) for c in table.constraints if str(c.name).startswith("ck_")}


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    with database.read() as session:
        assert version(session.connection()) == revisions()[-1]


def test_revisions_are_read_from_the_names_of_their_files(database: Database) -> None:
    scripts = ScriptDirectory(str(FOLDER))
    assert revisions() == [each.revision for each in reversed(list(scripts.walk_revisions()))]
    assert revisions()[-1] == scripts.get_current_head()
    with database.read() as session:
        assert version(session.connection()) == MigrationContext.configure(session.connection()).get_current_revision()


def test_a_message_cannot_have_a_parent_in_another_conversation(database: Database) -> None:
    with database.write() as session:
        for name in ("one", "two"):
            session.add(ConversationRow(id=name, owner="ada", title=name, created_ms=1, updated_ms=1))
        session.flush()
        session.add(MessageRow(id="question", conversation_id="one", place=0, role="user", created_ms=1))
    with pytest.raises(IntegrityError), database.write() as session:
        stray = MessageRow(id="stray", conversation_id="two", place=0, role="user", created_ms=1)
        stray.parent_id = "question"
        session.add(stray)
