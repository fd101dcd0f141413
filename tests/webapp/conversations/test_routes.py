"""The HTTP API of conversations, as the chat page uses it."""

import threading
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import event

from services.chat.requests import Requests
from services.conversations.asking import Asker, parse_ask
from services.conversations.shapes import Tree
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.settings import Settings
from services.wire.keys import Keys
from tests.webapp.conversations.conftest import HERE, Page
from webapp.application import create_app


def test_a_conversation_is_made_listed_edited_and_deleted(pages: tuple[Page, Page]) -> None:
    page = pages[0]
    assert page.ask("POST", "/api/conversations", {"id": "c", "title": "Sea"}).status_code == 201
    assert page.ask("POST", "/api/conversations", {"id": "c", "title": "Sea"}).status_code == 200
    page.json("PATCH", "/api/conversations/c", {"pinned": True, "folder": "work", "settings": {"thinking": False}})
    listed = page.json("GET", "/api/conversations?folder=work")
    assert listed["folders"] == ["work"] and listed["next"] is None
    assert listed["conversations"][0] == {
        **{"id": "c", "title": "Sea", "model": "", "folder": "work", "pinned": True, "running": False},
        "created_ms": listed["conversations"][0]["created_ms"],
        "updated_ms": listed["conversations"][0]["updated_ms"],
    }
    assert page.json("GET", "/api/conversations/c")["settings"] == {"thinking": False}
    assert page.json("DELETE", "/api/conversations/c")["undo_until_ms"] > 0
    assert page.ask("GET", "/api/conversations/c").status_code == 404
    assert page.json("POST", "/api/conversations/c/restore")["title"] == "Sea"


def test_another_browser_finds_nothing(pages: tuple[Page, Page]) -> None:
    mine, other = pages
    mine.json("POST", "/api/conversations", {"id": "c"})
    for method, path in (
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/restore"), ("POST", "/share"), ("DELETE", "/share"),
    ):  # fmt: skip
        refused = other.ask(method, f"/api/conversations/c{path}")
        assert (refused.status_code, refused.json["error"]["code"]) == (404, "not_found"), method  # type: ignore[index]
    assert other.json("GET", "/api/conversations")["conversations"] == []


def test_a_stranger_and_a_foreign_page_are_refused(settings: Settings, pages: tuple[Page, Page]) -> None:
    stranger = pages[0].client.application.test_client()
    assert stranger.get("/api/conversations", base_url=HERE).status_code == 401
    refused = pages[0].ask("POST", "/api/conversations", {"id": "c"}, headers={"Origin": "http://evil.example"})
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"id": "a/b"}),
        ("POST", "", {"title": "no id"}),
        ("POST", "", {"id": "c", "pinned": True}),
        ("POST", "", []),
        ("GET", "?limit=0", None),
        ("GET", "?limit=201", None),
        ("GET", "?limit=0000000019", None),
        ("GET", "?limit=0000000019999999", None),
        ("GET", "?before=x", None),
    ],
)
def test_what_is_wrong_is_said(pages: tuple[Page, Page], method: str, path: str, body: object) -> None:
    refused = pages[0].ask(method, f"/api/conversations{path}", body)
    assert (refused.status_code, refused.json["error"]["code"]) == (400, "invalid_request")  # type: ignore[index]


def test_deleting_a_conversation_ends_its_answers(
    pages: tuple[Page, Page], asker: Asker, redis_client: Redis, settings: Settings
) -> None:
    raw = {"conversation": "c", "id": "a", "model": "echo", "question": {"id": "q", "content": "sea?"}}
    asker.ask(pages[0].user, parse_ask(raw, max_chars=100))
    assert pages[0].json("GET", "/api/conversations")["conversations"][0]["running"]
    pages[0].json("DELETE", "/api/conversations/c")
    head = Requests(redis_client, Keys(settings.namespace)).journal.head("a")
    assert head is not None and head.status == "cancelled"


def test_a_link_shows_a_conversation_to_whoever_has_it_until_it_ends(pages: tuple[Page, Page], asker: Asker) -> None:
    mine, other = pages
    raw = {"conversation": "c", "id": "a", "model": "echo", "question": {"id": "q", "content": "sea?"}}
    asker.ask(mine.user, parse_ask(raw, max_chars=100))
    url = mine.json("POST", "/api/conversations/c/share")["url"]
    stranger = mine.client.application.test_client()
    page = stranger.get(url)
    assert page.status_code == 200 and page.headers["X-Robots-Tag"] == "noindex" and "Set-Cookie" not in page.headers
    shown = stranger.get(f"/api{url}").json
    assert [message["content"] for message in shown["messages"]] == ["sea?", ""]  # type: ignore[index]
    assert mine.user not in str(shown)
    mine.json("DELETE", "/api/conversations/c/share")
    assert other.ask("GET", f"/api{url}").status_code == 404


def test_readiness_is_the_database_too(pages: tuple[Page, Page], settings: Settings) -> None:
    assert [pages[0].ask("GET", path).status_code for path in ("/readyz", "/health")] == [200, 200]
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    refused = create_app(settings, away)[0].test_client().get("/readyz")
    assert refused.status_code == 503 and "database" in refused.text and "nobody" not in refused.text


def test_a_link_reads_no_message_beside_its_branch(
    pages: tuple[Page, Page], asker: Asker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("a", "b"):
        raw = {"conversation": "c", "id": version, "model": "echo", "question": {"id": "q", "content": "sea?"}}
        asker.ask(pages[0].user, parse_ask(raw, max_chars=100))
    url = pages[0].json("POST", "/api/conversations/c/share")["url"]
    read: list[str] = []

    def loaded(row: MessageRow, _: object) -> None:
        read.append(row.id)

    event.listen(MessageRow, "load", loaded)
    try:
        shown = pages[0].json("GET", f"/api{url}")
    finally:
        event.remove(MessageRow, "load", loaded)
    assert [message["id"] for message in shown["messages"]] == ["q", "b"]
    assert sorted(read) == ["b", "q"]


def test_what_no_quick_json_holds_is_told_all_the_same(pages: tuple[Page, Page], database: Database) -> None:
    """A schema in stored settings may have a number beyond 64 bits."""
    pages[0].json("POST", "/api/conversations", {"id": "c"})
    with database.write() as session:
        session.get_one(ConversationRow, "c").settings = {"limit": 2**70, "text": "\ud800"}
    assert pages[0].json("GET", "/api/conversations/c")["settings"] == {"limit": 2**70, "text": "\ud800"}


def test_conversations_are_written_outside_the_event_loop(
    pages: tuple[Page, Page], asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {"conversation": "c", "id": "a", "model": "echo", "question": {"id": "q", "content": "sea?"}}
    asker.ask(pages[0].user, parse_ask(raw, max_chars=100))
    url, made_in = pages[0].json("POST", "/api/conversations/c/share")["url"], list[int]()

    def noted(tree: Tree) -> dict[str, Any]:
        made_in.append(threading.get_ident())
        return as_dict(tree)

    as_dict = Tree.as_dict
    monkeypatch.setattr(Tree, "as_dict", noted)
    pages[0].json("GET", "/api/conversations/c")
    pages[0].json("POST", "/api/conversations", {"id": "c"})
    pages[0].json("GET", f"/api{url}")
    assert len(made_in) == 3 and threading.get_ident() not in made_in
