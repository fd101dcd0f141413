"""One round of the archivist as a task of Celery: beat sends it, for hours in which no web process runs."""

from functools import cached_property

from celery import Celery

from services.chat.requests import Requests
from services.conversations.archivist import Archivist
from services.database.database import Database
from services.database.schema import migrate
from services.jobs.dispatch import calmly
from services.settings import Settings
from services.wire.keys import ARCHIVE_TASK


class ArchiveTask:
    """The database is opened by the process that runs the task, not by the one that forks it."""

    def __init__(self, app: Celery, requests: Requests, settings: Settings) -> None:
        self._app = app
        self._requests = requests
        self._settings = settings

    def register(self) -> None:
        """Tell Celery which task this is."""
        self._app.task(name=ARCHIVE_TASK, shared=False)(calmly(self.archive))

    def archive(self) -> None:
        """Idempotent, and safe in several processes at once."""
        self._archivist.round()

    @cached_property
    def _archivist(self) -> Archivist:
        database = Database.of(self._settings)
        migrate(database)
        return Archivist(database, self._requests)
