"""Alembic runs this file. `services/database/schema.py` gives it the connection, in a transaction that is open."""

from alembic import context

from services.database.tables import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata)  # its names
context.run_migrations()
