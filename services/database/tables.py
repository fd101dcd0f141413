"""What the tables of every room share: one catalogue of tables, and names of constraints that are equal everywhere."""

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

NAMES = {  # Alembic can only change a constraint that has a name
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    """A row of a table; each room derives its rows from it. Times are milliseconds since 1970, UTC."""

    metadata = MetaData(naming_convention=NAMES)
