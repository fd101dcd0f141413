"""Quotas where people and programs meet them: the refusal of `/v1` and of a socket, and `GET /me/usage`."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from services.accounts.api_keys import ApiKeys
from services.chat.quotas import Quotas
from services.connection.embedded import EmbeddedServer
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.database.schema import migrate
from services.jobs.stored_files import StoredFiles
from services.settings import Settings
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message, SamplingOptions
from webapp.application import create_app


@pytest.fixture
def settings(redis_server: EmbeddedServer, redis_client: Redis, namespace: str, tmp_path: Path) -> Settings:
    redis_client.sadd(Keys(namespace).models, "echo")
    where = {"redis_url": redis_server.url, "namespace": namespace, "state_dir": tmp_path}
    return Settings(**where, user_tokens_per_day=1000)


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    database = Database.of(settings)
    migrate(database)
    return create_app(settings, database)[0].test_client()


@pytest.fixture
def key(redis_client: Redis, namespace: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {ApiKeys(redis_client, Keys(namespace)).create('k', 'ann')}"}


def spend(redis_client: Redis, settings: Settings, user: str) -> None:
    """Let the user's tokens of today be used."""
    quotas = Quotas.from_settings(redis_client, settings)
    asked = ChatRequest("old", user, "echo", (Message("user", "hi"),), SamplingOptions(max_new_tokens=900))
    quotas.reserve(asked, 1)  # nothing is known of its end: so it counts in full
    assert quotas.usage(user).used > 900


def test_a_user_sees_what_is_used_and_when_the_day_ends(
    client: FlaskClient, redis_client: Redis, settings: Settings, key: dict[str, str]
) -> None:
    spend(redis_client, settings, "ann")
    seen: Any = client.get("/me/usage", headers=key).json
    assert (seen["user"], seen["tokens_per_day"], seen["tokens_reserved"], seen["counted"]) == ("ann", 1000, 0, True)
    assert 900 < seen["tokens_used"] < 1000 and seen["resets_at"].endswith("T00:00:00Z")


def test_a_user_sees_what_is_stored_beside_the_bounds(client: FlaskClient, settings: Settings) -> None:
    user = client.get("/api/session").json["user"]  # type: ignore[index]
    files = StoredFiles(settings.state_dir / "files", max_bytes=1_000)
    with files.draft(user) as draft:
        draft.write(b"x" * 900)
        files.publish(draft, user, "batch", "lines.jsonl")
    with Database.of(settings).write() as session:
        session.add(ConversationRow(id="c", owner=user, title="t", system="be kind", created_ms=1, updated_ms=1))
        session.flush()
        session.add(MessageRow(id="q", conversation_id="c", place=0, role="user", content="Meer", created_ms=1))
    seen: Any = client.get("/me/usage").json
    texts = len("tbe kind{}") + len("Meer{}{}")  # with the settings of both and the message's extra
    assert seen["conversation_bytes"] == 1024 + texts
    assert (seen["most_conversation_bytes"], seen["file_bytes"]) == (1 << 30, 900)
    assert seen["most_file_bytes"] == settings.max_user_files_mib << 20


def test_the_cookie_of_a_browser_is_a_user_too_and_a_stranger_is_none(client: FlaskClient) -> None:
    assert client.get("/me/usage").status_code == 401
    user = client.get("/api/session").json
    seen: Any = client.get("/me/usage").json
    assert user is not None and seen["user"] == user["user"] and seen["tokens_used"] == 0


def test_a_program_is_refused_with_a_code_that_its_library_knows_and_is_not_told_to_try_again(
    client: FlaskClient, redis_client: Redis, settings: Settings, key: dict[str, str]
) -> None:
    """Official clients wait for two minutes at most, twice: in vain until tomorrow."""
    spend(redis_client, settings, "ann")
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 500}
    refused = client.post("/v1/chat/completions", json=body, headers=key)
    assert refused.status_code == 429 and refused.json is not None
    assert refused.json["error"]["code"] == "insufficient_quota"
    assert "the next day begins at" in refused.json["error"]["message"]
    wait_s = int(refused.headers["Retry-After"])
    assert 0 < wait_s <= 86_400
    assert refused.headers.get("x-should-retry") == ("false" if wait_s > 120 else None)


def test_a_socket_is_refused_with_a_code_of_its_own(settings: Settings, redis_client: Redis) -> None:
    app = create_app(settings)[0]
    browser = app.test_client()
    session = browser.get("/api/session").json
    assert session is not None
    spend(redis_client, settings, session["user"])
    socket = app.extensions["socketio"].test_client(app, flask_test_client=browser)
    asked: dict[str, Any] = {"id": "r1", "model": "echo", "messages": [{"role": "user", "content": "hi"}]}
    asked["sampling"] = {"max_new_tokens": 500}
    answer = socket.emit("submit", asked, callback=True)
    assert answer["ok"] is False and answer["error"]["code"] == "quota_exceeded"
    assert "the next day begins at" in answer["error"]["message"] and answer["error"]["retry_after_s"] > 0
