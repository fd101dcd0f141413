"""U+0000 where a text is looked up: PostgreSQL refuses the query itself, which was a failure of ours (500)."""

from pathlib import Path

import pytest

from services.accounts.accounts import Accounts
from services.connection.embedded import EmbeddedServer
from services.database.database import Database
from services.settings import Settings
from tests.webapp.accounts.visitor import PASSWORD, Visitor
from webapp.application import create_app


@pytest.fixture
def visitor(redis_server: EmbeddedServer, namespace: str, tmp_path: Path, database: Database) -> Visitor:
    """A browser in which a user has signed in."""
    settings = Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path, accounts="on")
    Accounts(database).users.create("ada", PASSWORD)
    visitor = Visitor(create_app(settings, database)[0].test_client())
    visitor.sign_in("ada")
    return visitor


def test_an_id_that_no_row_can_have_is_the_clients_mistake(visitor: Visitor, database: Database) -> None:
    paths = ("/api/conversations/%00", "/api/shared/%00", "/api/arena/battles/%00", "/sign-up/%00")
    refused = {path: visitor.get(path).status_code for path in paths}
    status = 404 if database.is_sqlite else 400  # SQLite can hold the text, and finds nothing
    assert refused == {**dict.fromkeys(paths, status), "/sign-up/%00": 410}, "an invitation is looked up by its digest"
    assert visitor.get("/api/search?q=%00").json == {"results": []}


def test_a_name_that_no_user_can_have_does_not_sign_in(visitor: Visitor, database: Database) -> None:
    visitor.submit("/sign-out", "/account")
    refused = visitor.sign_in("a\0da")
    assert refused.status_code == (401 if database.is_sqlite else 400)
    assert 'name="password"' in refused.text, "the form is there again"
