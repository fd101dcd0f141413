"""Search, files and take-over over HTTP, as the chat page uses them."""

import threading
from pathlib import Path
from typing import Any

import gevent
import orjson
import pytest

from services.arena.standings import Standings
from services.conversations import exports
from services.conversations.asking import Asker, parse_ask
from services.conversations.conversations import Conversations
from services.conversations.exports import ours
from services.conversations.search import Search
from services.conversations.shapes import Tree
from tests.webapp.conversations.conftest import HERE, Page
from webapp import application
from webapp.conversations import exchange
from webapp.conversations.exchange import IMPORT_PATH


@pytest.fixture
def page(pages: tuple[Page, Page], asker: Asker) -> Page:
    """With a conversation of one question."""
    raw = {"conversation": "c", "id": "a", "model": "echo", "question": {"id": "q", "content": "How deep is the sea?"}}
    asker.ask(pages[0].user, parse_ask(raw, max_chars=100))
    return pages[0]


def sent(page: Page, data: bytes) -> Any:
    more = {"data": data, "content_type": "application/octet-stream", "json": None}
    return page.ask("POST", IMPORT_PATH, **more)


def test_a_search_finds_words_of_ones_own_conversations(page: Page, pages: tuple[Page, Page]) -> None:
    (_, hit) = page.json("GET", "/api/search?q=DEEP+sea")["results"]
    assert (hit["conversation_id"], hit["message_id"], hit["role"]) == ("c", "q", "user")
    assert [piece for piece, is_hit in hit["snippet"] if is_hit] == ["deep", "sea"]
    assert pages[1].json("GET", "/api/search?q=sea")["results"] == []
    assert page.ask("GET", f"/api/search?q={'x' * 1_001}").status_code == 400


def test_a_file_of_all_conversations_is_imported_by_another_browser(page: Page, pages: tuple[Page, Page]) -> None:
    exported = page.ask("GET", "/api/export")
    assert "conversations.json" in exported.headers["Content-Disposition"]
    assert sent(pages[1], exported.data).json == {"imported": 1, "skipped": []}
    theirs = orjson.loads(pages[1].ask("GET", "/api/export").data)["conversations"][0]
    assert [message["content"] for message in theirs["messages"]] == ["How deep is the sea?", ""]
    assert theirs["messages"][1]["state"] == "failed", "its answer runs elsewhere"


@pytest.mark.parametrize(("kind", "mimetype"), [("markdown", "text/markdown"), ("openai", "application/jsonl")])
def test_one_conversation_is_exported_for_others(page: Page, kind: str, mimetype: str) -> None:
    exported = page.ask("GET", f"/api/conversations/c/export?as={kind}")
    assert exported.mimetype == mimetype and b"How deep is the sea?" in exported.data


def test_what_is_no_kind_and_no_conversation_is_refused(page: Page, pages: tuple[Page, Page]) -> None:
    assert page.ask("GET", "/api/export?as=pdf").status_code == 400
    assert pages[1].ask("GET", "/api/conversations/c/export").status_code == 404
    assert sent(page, b"no json").status_code == 400
    foreign = page.ask("POST", IMPORT_PATH, data=b"[]", content_type="text/plain", json=None)
    assert foreign.status_code == 403


def test_a_file_that_is_too_large_is_refused(
    pages: tuple[Page, Page], monkeypatch: pytest.MonkeyPatch, settings: Any, database: Any
) -> None:
    monkeypatch.setattr(application, "MAX_IMPORT_MIB", 0)
    small = Page(application.create_app(settings, database)[0].test_client())
    assert sent(small, b"[ ]").status_code == 413


def test_a_slow_sender_keeps_nobody_else_from_importing(
    pages: tuple[Page, Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, codes = exchange._receive, list[int]()

    def slowly(path: Path, max_bytes: int) -> None:
        if not codes:
            codes.append(0)
            codes[:] = [sent(each, b"[]").status_code for each in pages]
        receive(path, max_bytes)

    monkeypatch.setattr(exchange, "_receive", slowly)
    assert sent(pages[0], b"[]").status_code == 200
    assert codes == [429, 200], "one file of each user at a time"


def test_what_a_browser_kept_is_taken_over(pages: tuple[Page, Page]) -> None:
    said = {"id": "m", "role": "user", "content": "sea?", "state": "finished", "created_ms": 1}
    kept = {"id": "old", "title": "Sea", "model": "", "system": "", "updated_ms": 2, "messages": [said]}
    body = {"conversations": [kept]}
    assert pages[0].json("POST", "/api/conversations/take-over", body) == {"taken": ["old"]}
    assert pages[0].json("POST", "/api/conversations/take-over", body) == {"taken": ["old"]}
    assert pages[0].json("GET", "/api/conversations/old")["messages"][0]["content"] == "sea?"
    assert pages[0].ask("POST", "/api/conversations/take-over", {}, headers={"Origin": HERE}).status_code == 400


@pytest.mark.parametrize(
    ("owner", "name", "path"),
    [
        (Search, "find", "/api/search?q=sea"),
        (Conversations, "ids", "/api/export"),
        (Conversations, "find", "/api/conversations/c/export"),
        (Standings, "board", "/api/arena/leaderboard"),
    ],
)
def test_many_slow_requests_do_not_stop_the_quick_ones(
    page: Page, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, path: str
) -> None:
    """Ten at once held every thread of the process."""
    goes_on, quick = threading.Event(), getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert goes_on.wait(60)
        return quick(*args, **kwargs)

    monkeypatch.setattr(owner, name, slow)
    calls = [gevent.spawn(page.ask, "GET", path) for _ in range(15)]
    gevent.sleep(0)  # each has asked for a thread
    try:
        with gevent.Timeout(30):
            assert page.json("GET", "/api/conversations")["conversations"]
    finally:
        goes_on.set()
        gevent.joinall(calls)
    assert [call.value.status_code for call in calls] == [200] * 15


def test_files_are_made_outside_the_event_loop(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    made_in: set[int] = set()

    def noted(tree: Tree) -> dict[str, Any]:
        made_in.add(threading.get_ident())
        return ours(tree)

    monkeypatch.setattr(exports, "ours", noted)
    for path in ("/api/export", "/api/conversations/c/export"):
        assert orjson.loads(page.ask("GET", path).data)["conversations"]
    assert made_in and threading.get_ident() not in made_in
