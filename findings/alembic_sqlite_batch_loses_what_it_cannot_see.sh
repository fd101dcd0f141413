#!/usr/bin/env bash
# alembic 1.20.1 with SQLAlchemy 2.1.9 on SQLite: to change one column, batch mode copies the table into a new one that it
# makes from what SQLAlchemy reflects. What is not reflected is gone, without a warning: triggers, AUTOINCREMENT, a column's
# COLLATE NOCASE, the order of an index. (For unnamed CHECKs it does warn.)
#
# Expected: a renamed column and nothing else; or a warning for each thing that is lost.
# Seen:     no warning; name = 'ANNA' no longer finds Anna; the number 2 of a deleted row is given to a new one; the
#           trigger is gone
# Our code: has no such migrations; whoever writes one names the whole table (`copy_from`) and makes triggers anew.
set -euo pipefail
# shellcheck source=findings/_setup.sh
source "$(dirname "$0")/_setup.sh"
install alembic==1.20.1 SQLAlchemy==2.1.9

python - <<'EOF'
import sys
import warnings

import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations

SCHEMA = """
    CREATE TABLE log (number INTEGER);
    CREATE TABLE person (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT COLLATE NOCASE, note TEXT);
    CREATE INDEX newest ON person (note DESC);
    CREATE TRIGGER logged AFTER INSERT ON person BEGIN INSERT INTO log VALUES (new.id)\\; END;
    INSERT INTO person (name) VALUES ('Anna'), ('Bert');
    DELETE FROM person WHERE name = 'Bert';
"""
with sqlalchemy.create_engine("sqlite://").begin() as connection, warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")

    def ask(statement):
        return connection.execute(sqlalchemy.text(statement)).all()

    for statement in SCHEMA.replace("\\;", "\0").split(";\n"):
        if statement.strip():
            connection.execute(sqlalchemy.text(statement.replace("\0", ";")))
    found_before = len(ask("SELECT id FROM person WHERE name = 'ANNA'"))
    with Operations(MigrationContext.configure(connection)).batch_alter_table("person") as batch:
        batch.alter_column("note", new_column_name="remark")
    found_after = len(ask("SELECT id FROM person WHERE name = 'ANNA'"))
    connection.execute(sqlalchemy.text("INSERT INTO person (name) VALUES ('Carl')"))
    number = ask("SELECT id FROM person WHERE name = 'Carl'")[0][0]
    triggers = ask("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    for (definition,) in ask("SELECT sql FROM sqlite_master WHERE name IN ('person', 'newest')"):
        print(" ".join(definition.split()))
print(f"rows that name = 'ANNA' finds: {found_before}, then {found_after}; number of the new row: {number} (2 was Bert's)")
print(f"triggers: {triggers}; warnings: {[str(warning.message) for warning in warned]}")
if (found_before, found_after, number, triggers, warned) != (1, 0, 2, [], []):
    sys.exit("changed: something survives, or is told")
EOF
