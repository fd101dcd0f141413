"""How many bytes the messages of a conversation have: kept by triggers, so that nobody reads texts to count them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

COUNTED = ("content", "reasoning", "error", "extra", "parameters")

SQLITE = """
CREATE TRIGGER messages_bytes_{name} AFTER {event} ON messages BEGIN
    UPDATE conversations SET num_bytes = num_bytes + {change} WHERE id = {row}.conversation_id;
END
"""
POSTGRESQL = """
CREATE FUNCTION messages_bytes_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE conversations SET num_bytes = num_bytes + {change} WHERE id = {row}.conversation_id;
    RETURN NULL;
END $$
"""


def size(row: str, *, sqlite: bool) -> str:
    """An expression for the bytes of a message; `row` is a prefix of its columns."""
    form = "length(CAST({}.{} AS BLOB))" if sqlite else "octet_length({}.{}::text)"
    return "(" + " + ".join(form.format(row, column) for column in COUNTED) + ")"


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.add_column("conversations", sa.Column("num_bytes", sa.BigInteger, nullable=False, server_default="0"))
    new, old, all_of = size("new", sqlite=sqlite), size("old", sqlite=sqlite), size("messages", sqlite=sqlite)
    op.execute(
        f"UPDATE conversations SET num_bytes = (SELECT coalesce(sum({all_of}), 0) FROM messages "
        "WHERE messages.conversation_id = conversations.id)"
    )
    for name, event, change, row in (
        ("insert", "INSERT", new, "new"),
        ("update", f"UPDATE OF {', '.join(COUNTED)}", f"{new} - {old}", "new"),
        ("delete", "DELETE", f"0 - {old}", "old"),
    ):
        if sqlite:
            op.execute(SQLITE.format(name=name, event=event, change=change, row=row))
            continue
        op.execute(POSTGRESQL.format(name=name, change=change, row=row))
        op.execute(
            f"CREATE TRIGGER messages_bytes_{name} AFTER {event} ON messages "
            f"FOR EACH ROW EXECUTE FUNCTION messages_bytes_{name}()"
        )
