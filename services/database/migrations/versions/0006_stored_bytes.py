"""How many bytes a conversation has, with its messages: kept by triggers, so that nobody reads texts to count them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

OF_MESSAGE = ("content", "reasoning", "error", "extra", "parameters")
OF_CONVERSATION = ("title", "folder", "system", "settings")
FLOOR_BYTES = 1024  # of a conversation without a text: a row is not free

SQLITE = """
CREATE TRIGGER {table}_bytes_{name} AFTER {event} ON {table} BEGIN
    UPDATE conversations SET num_bytes = num_bytes + {change} WHERE id = {cid};
END
"""
POSTGRESQL = """
CREATE FUNCTION {table}_bytes_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE conversations SET num_bytes = num_bytes + {change} WHERE id = {cid};
    RETURN NULL;
END $$
"""


def size(row: str, columns: tuple[str, ...], *, sqlite: bool) -> str:
    """An expression for the bytes of these columns; `row` is a prefix of them."""
    form = "length(CAST({}.{} AS BLOB))" if sqlite else "octet_length({}.{}::text)"
    return "(" + " + ".join(form.format(row, column) for column in columns) + ")"


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    if not sqlite:
        # A web process of the build before may write both, in either order. We give up before PostgreSQL looks for a
        # deadlock, which it does after a second, and ends a writer; `migrate_when_there` tries again.
        op.execute("SET LOCAL lock_timeout = '500ms'")
        op.execute("LOCK TABLE messages, conversations IN ACCESS EXCLUSIVE MODE")
    op.add_column("conversations", sa.Column("num_bytes", sa.BigInteger, nullable=False, server_default="0"))
    own, messages = size("conversations", OF_CONVERSATION, sqlite=sqlite), size("messages", OF_MESSAGE, sqlite=sqlite)
    op.execute(
        f"UPDATE conversations SET num_bytes = {FLOOR_BYTES} + {own} + (SELECT coalesce(sum({messages}), 0) "
        "FROM messages WHERE messages.conversation_id = conversations.id)"
    )
    op.create_index("ix_conversations_bytes", "conversations", ["owner", "deleted_ms", "num_bytes"])
    for table, columns, cid, floor in (
        ("messages", OF_MESSAGE, "conversation_id", 0),
        ("conversations", OF_CONVERSATION, "id", FLOOR_BYTES),
    ):
        new, old = size("new", columns, sqlite=sqlite), size("old", columns, sqlite=sqlite)
        add_trigger(table, "insert", "INSERT", f"{floor} + {new}", f"new.{cid}", sqlite=sqlite)
        event = f"UPDATE OF {', '.join(columns)}"
        add_trigger(table, "update", event, f"{new} - {old}", f"new.{cid}", sqlite=sqlite)
    old = size("old", OF_MESSAGE, sqlite=sqlite)
    add_trigger("messages", "delete", "DELETE", f"0 - {old}", "old.conversation_id", sqlite=sqlite)


def add_trigger(table: str, name: str, event: str, change: str, cid: str, *, sqlite: bool) -> None:
    """After the event, the conversation of this id has `change` bytes more."""
    if sqlite:
        op.execute(SQLITE.format(table=table, name=name, event=event, change=change, cid=cid))
        return
    op.execute(POSTGRESQL.format(table=table, name=name, change=change, cid=cid))
    op.execute(
        f"CREATE TRIGGER {table}_bytes_{name} AFTER {event} ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_bytes_{name}()"
    )
