"""Brings a database to the schema of this build. Whoever starts first does it; the others wait.

Alembic keeps the order and the version; the revisions are written by hand in SQL that SQLite and PostgreSQL share:
autogenerate misses CHECKs, and its batch mode copies a table without its triggers, deleting what cascades from it.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from services.database.database import Database
from services.errors import ConfigurationError, Unavailable

FOLDER = Path(__file__).parent / "migrations"
PAUSE_S = 1.0  # between attempts to reach it
LOCK = 0x63686174  # PostgreSQL's advisory lock for migrations of ours


def migrate(database: Database, revision: str = "head") -> None:
    """Raises ConfigurationError for a database that a newer build has changed."""
    with database.write() as session:
        connection = session.connection()
        if not database.is_sqlite:  # SQLite's transaction has locked the file
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        if version(connection) != (revisions()[-1] if revision == "head" else revision):
            _upgrade(connection, revision)


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command  # here: most starts find the newest schema, and this takes 0.15 s
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER))
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise ConfigurationError(
            f"this build does not know the database's schema ({error}); use the build that made it, or a newer one"
        ) from None


def migrate_when_there(
    database: Database, say: Callable[[str], object], stopping: threading.Event | None = None
) -> bool:
    """Migrate as soon as the database can be reached; False when `stopping` was set first.

    `say` gets one line for each reason why it cannot be reached, and one when it answers.
    """
    stopping = stopping or threading.Event()
    reasons: set[str] = set()
    while not stopping.is_set():
        try:
            migrate(database)
        except Unavailable as error:
            if str(error) not in reasons:
                reasons.add(str(error))
                say(f"waiting for the database at {database.address}: {error}")
            stopping.wait(PAUSE_S)
        else:
            if reasons:
                say(f"the database at {database.address} answers")
            return True
    return False


def version(connection: Connection) -> str:
    """The revision of a database; empty for one without tables of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.scalar(text("SELECT version_num FROM alembic_version")) or ""


def revisions() -> list[str]:
    """All revisions, oldest first: their files' names begin with them."""
    return sorted(file.name.partition("_")[0] for file in (FOLDER / "versions").glob("[0-9]*.py"))
