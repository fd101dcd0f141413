"""What the database refuses is an error of ours that names it."""

import pytest
from sqlalchemy import select

from services.conversations.tables import ConversationRow
from services.database.database import Database
from services.errors import InvalidRequest


def test_what_postgresql_cannot_hold_is_a_refusal_that_names_it(database: Database) -> None:
    found = select(ConversationRow).where(ConversationRow.id == "a\0b")
    if database.is_sqlite:  # it can hold the text, and finds nothing
        with database.read() as session:
            assert session.scalar(found) is None
        return
    for begin in (database.read, database.write):
        with pytest.raises(InvalidRequest, match=r"cannot hold this text.*NUL"), begin() as session:
            session.scalar(found)
