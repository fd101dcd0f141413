"""The sidebar and the search over many conversations: `python -m bench.search [--database URL]`.

1,000 conversations of 100 messages of one owner, beside a tenth of that of others, in SQLite in a temporary folder or
in an empty PostgreSQL. Each question is asked again and again; the 95th percentile counts, and of a machine that is
busy the processor's time.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert

from bench.system import percentile
from services.conversations.conversations import Conversations
from services.conversations.search import Search
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.database.schema import migrate

OWNER = "ada"
WORDS = [
    "the", "sea", "weighs", "queue", "token", "of", "and", "worker", "a", "journal", "to", "answer", "is", "model",
    "in", "conversation", "parse_offset()", "report.csv", "self._redis", "数据库", "消息", "工作", "模型", "海", "很深",
]  # fmt: skip
QUERIES = {
    "a frequent word": "the",
    "two frequent words": "worker journal",
    "code": "parse_offset",
    "a rare word": "needle-417",
    "a word that is nowhere": "unheard",
    "two Chinese characters": "消息",
    "one rare Chinese character": "龘",
    "two Chinese characters that are nowhere": "鲸鱼",
    "two letters that are nowhere": "qz",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="", help="URL of an empty database; empty: SQLite")
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(options.database or f"sqlite:///{Path(folder) / 'chat.db'}")
        migrate(database)
        began = time.perf_counter()
        fill(database, "others", options.conversations // 10, options.messages)
        fill(database, OWNER, options.conversations, options.messages)
        print(f"filled in {time.perf_counter() - began:.0f} s")
        measure(database, options.rounds)


def fill(database: Database, owner: str, num_conversations: int, num_messages: int) -> None:
    """Conversations in batches, each a chain of questions and answers."""
    generator = random.Random(owner)
    for number in range(num_conversations):
        cid = f"{owner}-{number}"
        rows = [message(generator, cid, place) for place in range(num_messages)]
        with database.write() as session:
            session.add(
                ConversationRow(
                    id=cid, owner=owner, title=text(generator, 5), created_ms=number, updated_ms=number,
                    current_id=rows[-1]["id"], pinned=number % 200 == 0, folder=f"folder {number % 7}",
                )
            )  # fmt: skip
            session.flush()
            session.execute(insert(MessageRow), rows)


def message(generator: random.Random, cid: str, place: int) -> dict[str, object]:
    rare = f" needle-{place}-{cid} " if place == 41 else f" needle-{cid[-3:]} " if place == 7 else ""
    return {
        "id": f"{cid}-{place}",
        "conversation_id": cid,
        "parent_id": f"{cid}-{place - 1}" if place else None,
        "place": place,
        "role": "assistant" if place % 2 else "user",
        "content": text(generator, 30 if place % 2 == 0 else 120) + rare,
        "created_ms": place,
    }


def text(generator: random.Random, num_words: int) -> str:
    return " ".join(generator.choices(WORDS, k=num_words))


def measure(database: Database, rounds: int) -> None:
    conversations, search = Conversations(database), Search(database)
    report("the sidebar's first page", lambda: conversations.page(OWNER), rounds)
    report("a page of a folder", lambda: conversations.page(OWNER, folder="folder 3"), rounds)
    report("one conversation", lambda: conversations.find(OWNER, f"{OWNER}-5"), rounds)
    for name, query in QUERIES.items():
        report(f"{name} ({query})", lambda query=query: search.find(OWNER, query), rounds)  # type: ignore[misc]


def report(name: str, ask: Callable[[], object], rounds: int) -> None:
    taken_ms, processor_ms = [], []
    for _ in range(rounds):
        began, began_cpu = time.perf_counter(), time.process_time()
        ask()
        taken_ms.append(1000 * (time.perf_counter() - began))
        processor_ms.append(1000 * (time.process_time() - began_cpu))
    p50, p95, cpu = percentile(taken_ms, 50), percentile(taken_ms, 95), percentile(processor_ms, 95)
    print(f"{name:55} p50 {p50:7.1f} ms   p95 {p95:7.1f} ms   processor p95 {cpu:7.1f} ms")


if __name__ == "__main__":
    main()
