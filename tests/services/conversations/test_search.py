"""Messages are found by any word in them, on both databases, whatever a query looks like."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.conversations import search as search_module
from services.conversations.asking import append
from services.conversations.conversations import Conversations, owned
from services.conversations.search import Search
from services.conversations.tables import MessageRow
from services.database.database import Database

SAID = {
    "sea": "What does the SEA weigh?",
    "code": "def parse_offset(self, rid: str) -> int:\n    return x&&y || z[0]",
    "file": 'Attached text "report-2024.final.csv":\n```\na,b\n```',
    "chinese": "大海有多重？海很深。",
    "japanese": "東京タワー",
    "cyrillic": "Москва слезам не верит. Да",
    "percent": "100% of a_b and \\ 'quotes' \"double\"",
    "long": "x" * 500 + " needle\n\nin   the hay " + "y" * 500,
}


@pytest.fixture
def search(database: Database, conversations: Conversations) -> Search:
    conversations.create("ada", "c", {"title": "A talk about water"})
    conversations.create("eve", "d", {"title": "Hers"})
    with database.write() as session:
        for name, content in SAID.items():
            append(session, owned(session, "ada", "c"), id=name, role="user", content=content)
        append(session, owned(session, "ada", "c"), id="hid", role="user", content="SEA", hidden=True)
        append(session, owned(session, "eve", "d"), id="hers", role="user", content="the sea is hers")
    return Search(database)


def found(search: Search, query: str) -> list[str]:
    return [hit.message_id for hit in search.find("ada", query) if hit.role != "title"]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("sea", ["sea"]),
        ("weigh sea", ["sea"]),
        ("sea parse_offset", []),
        ("parse_off", ["code"]),
        ("x&&y", ["code"]),
        ("z[0]", ["code"]),
        ("report-2024.final", ["file"]),
        ("FINAL.CSV", ["file"]),
        ("海", ["chinese"]),
        ("大海", ["chinese"]),
        ("海很深", ["chinese"]),
        ("京タ", ["japanese"]),
        ("タワー", ["japanese"]),
        ("да", ["cyrillic"]),
        ("МОСКВА", ["cyrillic"]),
        ("100%", ["percent"]),
        ("%", ["percent"]),
        ("a_b", ["percent"]),
        ("a_c", []),
        ("\\", ["percent"]),
        ("'quotes'", ["percent"]),
        ('"double"', ["percent"]),
        ("needle hay", ["long"]),
        ("we IG", ["sea"]),
        ("", []),
        (" \n", []),
    ],
)
def test_a_message_is_found_by_what_stands_in_it(search: Search, query: str, ids: list[str]) -> None:
    assert found(search, query) == ids


@pytest.mark.parametrize(
    "query", ["AND", "sea OR", "NOT sea", 'sea"', "sea*", "(sea", "content:sea", "^sea", "NEAR(sea)", "-sea", "'; --"]
)
def test_operators_are_words(search: Search, query: str) -> None:
    words = query.lower().split()
    having = {name for name, said in SAID.items() if all(word in said.lower() for word in words)}
    assert set(found(search, query)) == having


@given(query=st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_no_query_is_an_error(search: Search, query: str) -> None:
    try:
        query.encode()
    except UnicodeEncodeError:
        return  # half of a surrogate pair: no body or address can bring it
    search.find("ada", query)


def test_a_snippet_shows_the_words_in_their_surroundings(search: Search) -> None:
    hit = search.find("ada", "NEEDLE hay")[0]
    assert [piece for piece, is_hit in hit.snippet if is_hit] == ["needle", "hay"]
    text = "".join(piece for piece, _ in hit.snippet)
    assert "x needle in the hay y" in text and text.startswith("…x") and text.endswith("y…") and len(text) < 250


def test_a_title_is_found_before_the_messages(search: Search) -> None:
    assert [(hit.role, hit.conversation_id) for hit in search.find("ada", "water")] == [("title", "c")]


def test_another_owners_and_deleted_messages_are_not_found(search: Search, conversations: Conversations) -> None:
    assert [hit.message_id for hit in search.find("eve", "sea")] == ["hers"]
    conversations.delete("eve", "d")
    assert search.find("eve", "sea") == []


def test_the_index_follows_what_is_changed_and_deleted(
    search: Search, database: Database, conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        session.get_one(MessageRow, "sea").content = "What does the mountain weigh?"
    assert found(search, "sea") == [] and found(search, "mountain") == ["sea"]
    monkeypatch.setattr("services.conversations.conversations.UNDO_MS", -1)
    conversations.delete("ada", "c")
    assert conversations.purge() == 1
    conversations.create("ada", "c", {})
    with database.write() as session:
        append(session, owned(session, "ada", "c"), id="sea", role="user", content="a lake")
    assert found(search, "mountain") == [] and found(search, "lake") == ["sea"]


def test_the_newest_messages_come_first_and_no_more_than_asked_for(search: Search, database: Database) -> None:
    with database.write() as session:
        for number in range(5):
            row = append(session, owned(session, "ada", "c"), id=f"w{number}", role="user", content="same words")
            row.created_ms += number
    assert [hit.message_id for hit in search.find("ada", "same", limit=3)] == ["w4", "w3", "w2"]
    assert [hit.message_id for hit in search.find("ada", "am", limit=2)] == ["w4", "w3"]


def test_a_snippet_of_a_long_message_of_one_letter_is_cut_at_once() -> None:
    """The expression of the words went back 199 letters at each of two million, and nothing else ran meanwhile."""
    word, before_s = "a" * 199 + "b", time.thread_time()
    snippet = search_module._snippet("a" * 2_000_000 + "b and the end", [word])
    assert time.thread_time() - before_s < 2
    assert [piece for piece, is_hit in snippet if is_hit] == [word]
    assert "".join(piece for piece, _ in snippet).endswith("b and the end")


def test_a_letter_that_is_longer_in_lower_case_moves_no_snippet_out_of_its_message(
    search: Search, database: Database
) -> None:
    with database.write() as session:
        append(session, owned(session, "ada", "c"), id="turkish", role="user", content="\u0130" * 300 + "anchor")
    (hit,) = search.find("ada", "anchor")
    assert "anchor" in "".join(piece for piece, _ in hit.snippet)
