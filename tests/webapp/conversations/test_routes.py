"""The HTTP API of conversations, as the chat page uses it."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from services.chat.requests import Requests
from services.connection.embedded import EmbeddedServer
from services.conversations.asking import Asker, parse_ask
from services.conversations.prompt import PromptLimits
from services.database.database import Database
from services.database.schema import migrate
from services.settings import Settings
from services.wire.keys import Keys
from webapp.application import create_app

HERE = "http://127.0.0.1:8000"


class Page:
    """A browser's page, over Flask's test client."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.user = client.get("/api/session", base_url=HERE).json["user"]  # type: ignore[index]

    def ask(self, method: str, path: str, body: object = None, **more: Any) -> TestResponse:
        sent = {} if method == "GET" else {"json": {} if body is None else body, "headers": {"Origin": HERE}}
        return self.client.open(path, method=method, base_url=HERE, **{**sent, **more})

    def json(self, method: str, path: str, body: object = None) -> Any:
        answer = self.ask(method, path, body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json


@pytest.fixture
def settings(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path)


@pytest.fixture
def database(settings: Settings) -> Database:
    database = Database.of(settings)
    migrate(database)
    return database


@pytest.fixture
def pages(settings: Settings, database: Database) -> tuple[Page, Page]:
    """Two browsers."""
    app = create_app(settings, database)[0]
    return Page(app.test_client()), Page(app.test_client())


@pytest.fixture
def asker(settings: Settings, database: Database, redis_client: Redis) -> Asker:
    redis_client.sadd(Keys(settings.namespace).models, "echo")
    redis_client.expire(Keys(settings.namespace).models, 600)
    requests = Requests(redis_client, Keys(settings.namespace), answer_ttl_s=600)
    return Asker(database, requests, PromptLimits(1_000, 10_000))


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
    assert pages[0].ask("GET", "/readyz").status_code == 200
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    refused = create_app(settings, away)[0].test_client().get("/readyz")
    assert refused.status_code == 503 and "database" in refused.text and "nobody" not in refused.text
