"""Threads of a web process that all use the database and the log: `python -m tests.webapp.server.threads_at_once URL`.

Ends with 1 when not all of them have ended within a minute.
"""

import webapp.__main__  # noqa: F401  # patches, so it comes first

# isort: split
import logging
import sys

import gevent
from sqlalchemy import text
from sqlalchemy.orm import Session, loading

from services.database.database import Database
from services.logs import configure_logging
from webapp.server import threads

log = logging.getLogger("chatserver.test")


def work(database: Database) -> None:
    for _ in range(25):
        with database.write() as session:
            session.execute(text("SELECT 1"))
        log.info("wrote")
    for _ in range(2_000):
        Session()  # SQLAlchemy numbers each
        loading._new_runid()  # and each result


if __name__ == "__main__":
    configure_logging(process="test")
    sys.setswitchinterval(1e-6)  # threads meet in the shortest of locks
    used = Database(sys.argv[1])
    threads.prepare()
    used.check()  # a start connects first, for its migrations
    calls = [gevent.spawn(threads.in_thread, work, used) for _ in range(8)]
    gevent.joinall(calls, timeout=60, raise_error=True)
    sys.exit(any(not call.ready() for call in calls))
