"""Fixtures of a web app whose users sign in."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from services.accounts.accounts import Accounts
from services.connection.embedded import EmbeddedServer
from services.database.database import Database
from services.database.schema import migrate
from services.settings import Settings
from tests.webapp.accounts.visitor import PASSWORD, Visitor
from webapp.application import create_app


@pytest.fixture
def settings(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path, accounts="on")


@pytest.fixture
def app(settings: Settings) -> Flask:
    migrate(Database.of(settings))
    return create_app(settings)[0]


@pytest.fixture
def accounts(app: Flask, settings: Settings) -> Accounts:
    """Two users and an administrator."""
    made = Accounts(Database.of(settings))
    for name, role in (("ada", "user"), ("bob", "user"), ("root", "admin")):
        made.users.create(name, PASSWORD, role=role)
    return made


@pytest.fixture
def visitor(app: Flask, accounts: Accounts) -> Callable[..., Visitor]:
    """`visitor()` is a browser; with a name, one that has signed in."""

    def make(name: str = "", address: str = "127.0.0.1") -> Visitor:
        made = Visitor(app.test_client(), address)
        if name:
            assert made.sign_in(name).status_code == 302
        return made

    return make
