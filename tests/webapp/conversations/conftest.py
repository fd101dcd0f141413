"""Two browsers over Flask's test client, and a database in a folder of their own."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from services.chat.requests import Requests
from services.connection.embedded import EmbeddedServer
from services.conversations.asking import Asker
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
