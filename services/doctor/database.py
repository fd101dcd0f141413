"""Checks the database: can it be reached, does this build know its schema, how large is the file of SQLite?"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from services.doctor.findings import Finding, note, ok, wrong
from services.errors import ConfigurationError, Unavailable
from services.settings import Settings, variable_of

if TYPE_CHECKING:
    from services.database.database import Database


def check_database(settings: Settings) -> Iterator[Finding]:
    if find_spec("sqlalchemy") is None:
        yield note("not installed here: SQLAlchemy; the web app's doctor looks at the database")
        return
    from services.database.database import Database
    from services.database.schema import revisions, version

    variable = variable_of("database_url")
    try:
        database = Database.of(settings)
        if database.is_sqlite and not _file_of(database).exists():
            yield note(f"{database.address} does not exist yet; the web app makes it at its first start")
            return
        with database.read() as session:
            found = version(session.connection())
    except (ConfigurationError, Unavailable) as error:
        yield wrong(error.message, f"start the database, open the network to it, or correct {variable}")
        return
    except OSError as error:  # the check of the state folder says what is wrong
        yield note(f"without its folder the doctor cannot see the database: {error}")
        return
    if found and found not in revisions():
        yield wrong(f"{database.address} has the schema {found}, which this build does not know", "use the newer build")
    elif found != revisions()[-1]:
        what = f"schema {found}" if found else "no schema"
        yield note(f"{database.address} has {what}; the web app changes it to {revisions()[-1]} at its next start")
    else:
        size = f", {_file_of(database).stat().st_size // 1_048_576:,} MiB" if database.is_sqlite else ""
        yield ok(f"{database.address} answers, schema {found}{size}")


def _file_of(database: "Database") -> Path:
    return Path(database.url.database or "")
