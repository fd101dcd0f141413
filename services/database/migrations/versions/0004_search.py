"""The index by which messages are found.

SQLite: a full-text table of trigrams. Its rows need a number that stays, which `search_rows` has: SQLite may change the
row numbers of `messages` when it packs the file. Triggers keep both in step, also for what a cascade deletes.

PostgreSQL: an index of trigrams; the database keeps it.
"""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

log = logging.getLogger("chatserver.database")

SQLITE = (
    "CREATE TABLE search_rows (number INTEGER PRIMARY KEY AUTOINCREMENT, message_id VARCHAR NOT NULL UNIQUE)",
    "CREATE VIRTUAL TABLE message_search USING fts5(content, content='', tokenize='trigram')",
    """
    CREATE TRIGGER messages_search_insert AFTER INSERT ON messages BEGIN
        INSERT INTO search_rows (message_id) VALUES (new.id);
        INSERT INTO message_search (rowid, content)
            SELECT number, new.content FROM search_rows WHERE message_id = new.id;
    END
    """,
    """
    CREATE TRIGGER messages_search_update AFTER UPDATE OF content ON messages WHEN old.content IS NOT new.content BEGIN
        INSERT INTO message_search (message_search, rowid, content)
            SELECT 'delete', number, old.content FROM search_rows WHERE message_id = old.id;
        INSERT INTO message_search (rowid, content)
            SELECT number, new.content FROM search_rows WHERE message_id = new.id;
    END
    """,
    """
    CREATE TRIGGER messages_search_delete BEFORE DELETE ON messages BEGIN
        INSERT INTO message_search (message_search, rowid, content)
            SELECT 'delete', number, old.content FROM search_rows WHERE message_id = old.id;
        DELETE FROM search_rows WHERE message_id = old.id;
    END
    """,
    "INSERT INTO search_rows (message_id) SELECT id FROM messages ORDER BY created_ms, place",
    """
    INSERT INTO message_search (rowid, content)
        SELECT number, content FROM search_rows JOIN messages ON messages.id = message_id
    """,
)


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for statement in SQLITE:
            op.execute(statement)
    elif connection.scalar(sa.text("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_trgm'")):
        op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        op.execute("CREATE INDEX ix_messages_search ON messages USING gin (content gin_trgm_ops)")
    else:
        log.warning("this PostgreSQL has no pg_trgm (package postgresql-contrib): a search reads every message")
