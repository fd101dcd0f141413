"""How many bytes a database takes, for the admin page."""

from sqlalchemy import text

from services.database.database import Database

_SQLITE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
_POSTGRESQL = "SELECT pg_database_size(current_database())"


def size_bytes(database: Database) -> int:
    """Raises Unavailable while the database cannot be reached."""
    with database.read() as session:
        return int(session.execute(text(_SQLITE if database.is_sqlite else _POSTGRESQL)).scalar_one())
