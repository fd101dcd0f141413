"""Web, database and Redis die around the end of answers: every answer is in the database exactly once, whole.

The writer of an answer's row depends on no reader, so the readers of these answers go away once they have asked.
"""

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.conversations.tables import MessageRow
from services.database.database import Database
from tests.end_to_end.system import Browser, answers, wait_until
from tests.faults.answers import text_in
from tests.faults.conftest import Outcome
from tests.faults.system import FaultSystem
from tests.faults.worker import MODEL
from tests.postgres import PostgresServer

NUM_ANSWERS = 6
TOKENS = 40
START_S = 180.0
RATE = 40  # tokens per second and request


class ArchivedSystem:
    """A fault system with its database."""

    def __init__(self, system: FaultSystem, database: Database, server: PostgresServer | None) -> None:
        self.system = system
        self.database = database
        self._server = server

    def start(self) -> None:
        """Start what does not run, one after the other: a machine that is busy takes long."""
        for part in self.system.parts.values():
            self.system.start_part(part.name)
            if part.kind == "web":
                wait_until(lambda url=part.url: answers(f"{url}/readyz"), f"{part.name}'s start", START_S)  # type: ignore[misc]
            else:
                self.system.ready(part.name)

    def ask(self, name: str) -> list[str]:
        """Questions whose reader goes away; the ids of their answers."""
        browser = Browser(self.system.parts["web-0"].url)
        rids = [f"{name}-{number}" for number in range(NUM_ANSWERS)]
        for rid in rids:
            question = {"id": f"{rid}-q", "content": "hello"}
            payload = {"conversation": f"c-{rid}", "id": rid, "parent": None, "question": question, "model": MODEL}
            answer = browser.call("ask", {**payload, "sampling": {"max_new_tokens": TOKENS}})
            assert answer["ok"], answer
        browser.close()
        return rids

    def wait_for_tokens(self, rids: list[str], number: int) -> None:
        wait_until(lambda: all(self._head_n(rid) >= number for rid in rids), f"{number} tokens of each answer", 60)

    def wait_for_ends(self, rids: list[str]) -> None:
        heads = self.system.journal.head
        wait_until(lambda: all((head := heads(rid)) and head.ended for rid in rids), "the ends of the answers", 60)

    @contextmanager
    def database_away(self) -> Iterator[None]:
        """PostgreSQL is killed, or another process holds SQLite's lock for longer than a writer waits."""
        if self._server is not None:
            self._server.kill()
            yield
            self._server.start()
            return
        assert self.database.url.database
        with sqlite3.connect(self.database.url.database, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        other.close()

    def judge(self, rids: list[str]) -> None:
        """Every answer is in its row once, whole."""
        wait_until(lambda: all(row.state == "finished" for row in self.rows(rids)), "the rows of the answers", 60)
        for row in self.rows(rids):
            found = self.system.journal.read(row.id)
            assert found is not None
            assert row.reasoning + row.content == text_in(found[1]), "the reasoning comes before the answer"
            assert len(found[1][-1].ids) + found[1][-1].off == TOKENS
            assert self.archived(row.id) <= 1, "whoever closed it may have died before it said so"

    def rows(self, rids: list[str]) -> list[MessageRow]:
        with self.database.read() as session:
            return [session.get_one(MessageRow, rid) for rid in rids]

    def archived(self, rid: str) -> int:
        """How often a process says that it closed the row."""
        return sum("archived" in line and f"{rid}" in line.split("rid=")[-1] for line in self.log())

    def log(self) -> list[str]:
        return [line for path in self.system.folder.glob("process-*.log") for line in path.read_text().splitlines()]

    def _head_n(self, rid: str) -> int:
        head = self.system.journal.head(rid)
        return head.n if head is not None else 0


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_binary: Path
) -> Iterator[ArchivedSystem]:
    folder = tmp_path_factory.mktemp("archive")
    server = PostgresServer() if request.param == "postgresql" else None
    url = server.create("archive") if server is not None else f"sqlite:///{folder}/chat.db"
    options = {"worker_options": ("--rate", str(RATE)), "binary": redis_binary}
    system = FaultSystem(folder, num_workers=2, num_webs=2, **options)  # type: ignore[arg-type]
    system.environment["DATABASE_URL"] = url
    try:
        made = ArchivedSystem(system, Database(url), server)
        made.start()
        yield made
    finally:
        system.close()
        if server is not None:
            server.close()


def test_an_answer_whose_reader_left_is_archived_once(archive: ArchivedSystem) -> None:
    archive.judge(archive.ask("alone"))


def test_all_web_processes_die_while_answers_end(archive: ArchivedSystem, outcome: Outcome) -> None:
    rids = archive.ask("web")
    archive.wait_for_tokens(rids, TOKENS // 2)
    for name in ("web-0", "web-1"):
        archive.system.send_signal(name, signal.SIGKILL)
    archive.wait_for_ends(rids)
    archive.start()
    archive.judge(rids)
    outcome("web processes killed, archive", requests=len(rids), result="archived once, whole")


def test_the_database_goes_away_while_answers_end(archive: ArchivedSystem, outcome: Outcome) -> None:
    rids = archive.ask("database")
    archive.wait_for_tokens(rids, TOKENS // 2)
    with archive.database_away():
        archive.wait_for_ends(rids)
        wait_until(lambda: "not archived at present" in "\n".join(archive.log()), "the complaint", 60)
    archive.judge(rids)
    wait_until(lambda: "archived again" in "\n".join(archive.log()), "the end of the complaint")
    outcome("database away, archive", requests=len(rids), result="archived once, whole")


def test_redis_dies_while_answers_end(archive: ArchivedSystem, outcome: Outcome) -> None:
    rids = archive.ask("redis")
    archive.wait_for_tokens(rids, TOKENS // 2)
    archive.system.kill_redis()
    archive.judge(rids)
    outcome("Redis killed, archive", requests=len(rids), result="archived once, whole")


def test_a_web_process_dies_at_the_moment_of_the_end(archive: ArchivedSystem, outcome: Outcome) -> None:
    rids = archive.ask("moment")
    archive.wait_for_ends(rids[:1])
    archive.system.send_signal("web-0", signal.SIGKILL)
    archive.wait_for_ends(rids)
    archive.judge(rids)
    archive.start()
    outcome("one web process killed, archive", requests=len(rids), result="archived once, whole")
