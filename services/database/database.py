"""One database: SQLite in the state folder, or PostgreSQL by its URL.

Every call is a transaction. Under SQLite a transaction that writes begins as such (`BEGIN IMMEDIATE`): one that read
before it wrote would fail when another process wrote in between.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from services.database.idle_connections import IdleConnections
from services.errors import ConfigurationError, InvalidRequest, Unavailable
from services.settings import Settings

BUSY_MS = 10_000  # SQLite: how long a writer waits for another one
PATIENCE = {"connect_timeout": 5, "tcp_user_timeout": 10_000}  # PostgreSQL: seconds, milliseconds
FILE = "chatserver.db"


class Database:
    """Sessions of one database. Nothing is opened before the first of them."""

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        # SQLite opens in a tenth of a millisecond, and a connection that stays would belong to one thread.
        self._engine = (
            create_engine(self.url, poolclass=NullPool)
            if self.is_sqlite
            else create_engine(self.url, poolclass=IdleConnections, pool_pre_ping=True, connect_args=PATIENCE)
        )
        if self.is_sqlite:
            event.listen(self._engine, "connect", _prepare)
            event.listen(self._engine, "begin", _begin)

    @classmethod
    def of(cls, settings: Settings) -> "Database":
        return cls(settings.database_url or f"sqlite:///{settings.state_dir / FILE}")

    @property
    def engine(self) -> Engine:
        """For migrations."""
        return self._engine

    @property
    def address(self) -> str:
        """For people: without the password."""
        return self.url.render_as_string(hide_password=True)

    def check(self) -> None:
        """Raises Unavailable while the database cannot be reached."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads. Raises Unavailable while the database cannot be reached."""
        with _translated(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed at the end, or rolled back by an exception. Raises as `read` does."""
        with _translated(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            session.connection(execution_options={"writes": True})
            yield session

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the driver as ours: what passes is Unavailable, a value that no column can hold an InvalidRequest.

    A broken rule of the schema stays what it is.
    """
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"the database cannot be used: {_reason(error)}", retry_after_s=1.0) from error
    except DataError as error:
        raise InvalidRequest(f"the database cannot hold this text: {_reason(error)}") from error


def _reason(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0][:200] if error.orig else "no reason given"


def _checked(given: str) -> URL:
    try:
        url = make_url(given)
    except ArgumentError:
        raise ConfigurationError(
            "the database's URL is not one; write postgresql://USER:PASSWORD@HOST/NAME or sqlite:////folder/file.db"
        ) from None
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"no database of the kind {url.get_backend_name()!r} is supported; use postgresql:// or sqlite://"
        )
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    return url


def _prepare(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own; `_begin` does
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
