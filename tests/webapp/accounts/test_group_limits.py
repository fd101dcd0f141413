"""The loop that copies groups' limits to Redis, over a Redis and a PostgreSQL that go and come back."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from services.accounts.groups import Groups
from services.accounts.users import Users
from services.chat.quotas import Quotas
from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer, free_port
from services.database.database import Database
from services.database.schema import migrate
from services.settings import Settings
from services.wire.keys import Keys
from tests.postgres import PostgresServer
from webapp.accounts.group_limits import GroupLimits

Eventually = Callable[..., None]
DATABASE_AWAY, REDIS_AWAY = "the database cannot be used", "Redis does not answer"
NOT_YET = "changed groups do not hold yet"


class Rounds(threading.Event):
    """Is waited for after each round, here without the two seconds."""

    number = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.number += 1
        return super().wait(0.01)


class Loop:
    """The loop as a thread, and the servers that it uses."""

    def __init__(self, redis_server: EmbeddedServer, postgres: PostgresServer, settings: Settings) -> None:
        self.redis_server, self.postgres = redis_server, postgres
        self.database = Database.of(settings)
        migrate(self.database)
        self.groups, self.users = Groups(self.database), Users(self.database)
        self.redis = connect(settings.redis_url, role="test")
        self.quotas = Quotas.from_settings(self.redis, settings)
        self.rounds = Rounds()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            GroupLimits(self.groups, self.quotas).serve(self.rounds)
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    def goes_on(self, eventually: Eventually, number: int = 3) -> None:
        """Waits until so many more rounds have ended."""
        wanted = self.rounds.number + number
        eventually(lambda: self.rounds.number >= wanted, "more rounds", 60.0)

    def heeded(self, user: str) -> int | None:
        return self.quotas.get(user).tokens_per_day

    def close(self) -> None:
        self.rounds.set()
        self._thread.join()
        self.redis.close()
        self.database.close()


@pytest.fixture
def loop(redis_binary: Path, postgres_server: PostgresServer, namespace: str, tmp_path: Path) -> Iterator[Loop]:
    """Of servers that stay on their ports when they end and start again."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with EmbeddedServer(tmp_path / "redis", binary=redis_binary, port=free_port(), appendfsync="no") as server:
        url = postgres_server.create(name)
        made = Loop(
            server,
            postgres_server,
            Settings(redis_url=server.url, database_url=url, namespace=namespace, state_dir=tmp_path, accounts="on"),
        )
        yield made
        made.close()
    postgres_server.drop(name)


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """What the loop has logged that has these words."""
    caplog.set_level(logging.WARNING, "chatserver.web")
    return lambda words: [record.getMessage() for record in caplog.records if words in record.getMessage()]


def test_a_changed_group_reaches_redis_and_one_that_is_gone_leaves_it(loop: Loop, eventually: Eventually) -> None:
    loop.groups.set("lab", tokens_per_day=70)
    ann = loop.users.create("ann", group="lab").id
    eventually(lambda: loop.heeded(ann) == 70, "the group's limit")
    loop.groups.set("lab", tokens_per_day=90)
    eventually(lambda: loop.heeded(ann) == 90, "the changed limit")
    assert loop.groups.remove("lab") == 1
    eventually(lambda: loop.quotas.num_shared() == 0, "the end of the limit")


def test_redis_that_lost_the_copy_gets_it_again(loop: Loop, eventually: Eventually) -> None:
    """The loop does little while nothing changed: an empty Redis would stay so."""
    loop.groups.set("lab", tokens_per_day=70)
    ann = loop.users.create("ann", group="lab").id
    eventually(lambda: loop.heeded(ann) == 70, "the group's limit")
    loop.goes_on(eventually)
    loop.redis.flushall()  # a server of this test alone
    eventually(lambda: loop.heeded(ann) == 70, "the limit again")


@pytest.mark.parametrize("away", [REDIS_AWAY, DATABASE_AWAY])
def test_each_reason_of_an_outage_is_said_once_and_a_change_arrives_after_it(
    loop: Loop, away: str, eventually: Eventually, complaints: Callable[[str], list[str]]
) -> None:
    server: Any = loop.redis_server if away == REDIS_AWAY else loop.postgres
    loop.groups.set("lab", tokens_per_day=1)
    ann = loop.users.create("ann", group="lab").id
    eventually(lambda: loop.heeded(ann) == 1, "the group's limit")
    for outage in (1, 2):
        before = len(complaints(NOT_YET))
        server.kill()
        try:
            eventually(lambda before=before: complaints(away)[before:], "a warning", 30.0)
            loop.goes_on(eventually, 10)
        finally:
            server.start()
        loop.groups.set("lab", tokens_per_day=10 * outage)
        eventually(lambda outage=outage: loop.heeded(ann) == 10 * outage, "the limit after the outage", 30.0)
        said = complaints(NOT_YET)[before:]
        assert said == complaints(away)[before:] and len(said) == len(set(said))
        loop.goes_on(eventually)
        assert complaints(NOT_YET)[before:] == said, "it goes on in silence"


def test_an_error_of_one_round_is_not_the_last_round(
    loop: Loop, namespace: str, eventually: Eventually, complaints: Callable[[str], list[str]]
) -> None:
    """A key of another kind, which only a stranger or a bug makes, ended the loop until the next start."""
    ann = loop.users.create("ann").id
    loop.goes_on(eventually)
    key = Keys(namespace).group_limits
    loop.redis.set(key, "no hash")
    eventually(lambda: complaints("a copy of their limits failed"), "a warning")
    loop.goes_on(eventually)
    assert len(complaints("a copy of their limits failed")) == 1
    loop.redis.delete(key)
    loop.groups.set("lab", tokens_per_day=70)
    loop.users.change(ann, group="lab")
    eventually(lambda: loop.heeded(ann) == 70, "the limit after the error")
