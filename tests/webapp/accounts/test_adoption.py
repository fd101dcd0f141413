"""What becomes of a question that nobody had accepted when its asker signed in."""

from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from webapp.accounts.adoption import Adoption


def test_a_question_that_the_queue_has_not_accepted_is_the_users(database: Database) -> None:
    """The user asks it again; the archivist looks for a request of whoever `asked_by` names, and called it lost."""
    asked = {"unsent": "anon-1", "other": "anon-2"}
    with database.write() as session:
        session.add(ConversationRow(id="c", owner="anon-1", title="T", created_ms=1, updated_ms=1))
        session.flush()
        for place, (name, asker) in enumerate(asked.items()):
            row = MessageRow(id=name, conversation_id="c", place=place, role="assistant", state="unsent", created_ms=1)
            row.asked_by = asker
            session.add(row)
    assert Adoption(database).adopt("anon-1", "ada") == 1
    with database.read() as session:
        askers = {name: session.get_one(MessageRow, name).asked_by for name in asked}
    assert askers == {"unsent": "ada", "other": "anon-2"}
