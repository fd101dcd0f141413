"""A database with the tables of all rooms, and answers as the archivist leaves them."""

from pathlib import Path

from sqlalchemy import update

from services.conversations.tables import MessageRow
from services.database.database import Database
from services.database.schema import migrate


def made(folder: Path) -> Database:
    database = Database(f"sqlite:///{folder}/chat.db")
    migrate(database)
    return database


def finish(database: Database, message_id: str, content: str, **fields: object) -> None:
    """What the archivist writes when an answer has ended."""
    with database.write() as session:
        session.execute(
            update(MessageRow)
            .where(MessageRow.id == message_id)
            .values(**{"state": "finished", "code": "stop", "content": content, "ended_ms": 9, **fields})
        )
