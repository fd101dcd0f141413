"""The schema's way from version to version, as Alembic reads it; `schema.py` runs it. A released one never changes."""
