"""Who may use what: every route and every event of a socket × a stranger, the owner, another user, an administrator.

The routes come from the application's own table; a new route fails here until it has a row. The sockets are asked by
tests/end_to_end/test_accounts.py.

    everybody   answers strangers, too
    user        answers who has signed in; what it shows and changes is the user's own
    owned       the same, with an id in its path: another user's is not there (404), also for an administrator
    admin       answers administrators
    key         answers who has an API key; a cookie is none
    key owned   the same, with an id in its path: another user's is not there

Rows for the API's ids that no fixture makes are asked with an id that nobody has: they answer 404 whoever asks.
"""

import io
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from werkzeug.test import TestResponse

from services.accounts.accounts import Accounts
from services.accounts.api_keys import ApiKeys
from services.arena.tables import BattleRow
from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.database.schema import migrate
from services.serving.registry import Registry, WorkerInfo
from services.settings import Settings
from services.wire.keys import Keys
from tests.webapp.accounts.visitor import PASSWORD, Visitor
from webapp.application import create_app

ROUTES = """
GET     /                               user
GET     /account                        user
POST    /account/adopt                  user
POST    /account/keys                   user
POST    /account/keys/revoke            user
POST    /account/password               user
POST    /account/sessions/end           user
GET     /admin                          admin
POST    /api/account/adopt              user
POST    /api/admin/dead-letters/drop    admin
POST    /api/admin/dead-letters/retry   admin
GET     /api/admin/groups               admin
POST    /api/admin/groups/remove        admin
POST    /api/admin/groups/set           admin
POST    /api/admin/invitations          admin
POST    /api/admin/invitations/withdraw admin
GET     /api/admin/keys                 admin
POST    /api/admin/keys/revoke          admin
GET     /api/admin/limits               admin
POST    /api/admin/limits/set           admin
POST    /api/admin/limits/unset         admin
GET     /api/admin/overview             admin
GET     /api/admin/people               admin
POST    /api/admin/requests/cancel      admin
GET     /api/admin/storage              admin
POST    /api/admin/users/change         admin
GET     /api/arena/battles/<battle_id>            owned
POST    /api/arena/battles/<battle_id>/questions  owned
POST    /api/arena/battles/<battle_id>/vote       owned
POST    /api/arena/battles              user
GET     /api/arena/improvement          admin
POST    /api/arena/improvement          admin
GET     /api/arena/leaderboard          user
GET     /api/arena/models               user
GET     /api/conversations              user
POST    /api/conversations              user
GET     /api/conversations/<cid>        owned
PATCH   /api/conversations/<cid>        owned
DELETE  /api/conversations/<cid>        owned
GET     /api/conversations/<cid>/export owned
POST    /api/conversations/<cid>/restore owned
POST    /api/conversations/<cid>/share  owned
DELETE  /api/conversations/<cid>/share  owned
POST    /api/conversations/<cid>/title  owned
POST    /api/conversations/take-over    user
GET     /api/export                     user
POST    /api/import                     user
GET     /api/jobs                       admin
POST    /api/jobs                       admin
GET     /api/jobs/<jid>                 admin
DELETE  /api/jobs/<jid>                 admin
POST    /api/jobs/<jid>/again           admin
POST    /api/jobs/<jid>/cancel          admin
GET     /api/jobs/<jid>/files/<kind>    admin
POST    /api/jobs/<jid>/serve           admin
POST    /api/messages/<mid>/feedback    owned
GET     /api/models                     user
GET     /api/recipes                    admin
POST    /api/recipes/check              admin
GET     /api/samples/<name>             admin
GET     /api/search                     user
GET     /api/session                    user
GET     /api/shared/<secret>            everybody
GET     /api/trainings                  admin
POST    /api/trainings                  admin
POST    /api/trainings/previews         admin
GET     /api/trainings/previews/<pid>   admin
POST    /api/uploads                    admin
GET     /api/uploads/<upload_id>        admin
PUT     /api/uploads/<upload_id>        admin
DELETE  /api/uploads/<upload_id>        admin
GET     /arena                          user
GET     /health                         everybody
GET     /healthz                        everybody
GET     /jobs                           admin
GET     /jobs/<jid>                     admin
GET     /me/usage                       user
GET     /readyz                         everybody
GET     /shared/<secret>                everybody
GET     /sign-in                        everybody
POST    /sign-in                        everybody
GET     /sign-in/provider               everybody
GET     /sign-in/provider/back          everybody
POST    /sign-out                       everybody
GET     /sign-up/<secret>               everybody
POST    /sign-up/<secret>               everybody
GET     /static/<path:filename>         everybody
POST    /v1/batches                     key
GET     /v1/batches                     key
GET     /v1/batches/<batch_id>          key owned
POST    /v1/batches/<batch_id>/cancel   key owned
POST    /v1/chat/completions            key
POST    /v1/completions                 key
POST    /v1/files                       key
GET     /v1/files                       key
DELETE  /v1/files/<file_id>             key owned
GET     /v1/files/<file_id>             key owned
GET     /v1/files/<file_id>/content     key owned
GET     /v1/fine_tuning/jobs                      key admin
POST    /v1/fine_tuning/jobs                      key admin
GET     /v1/fine_tuning/jobs/<job_id>             key admin
POST    /v1/fine_tuning/jobs/<job_id>/cancel      key admin
GET     /v1/fine_tuning/jobs/<job_id>/checkpoints key admin
GET     /v1/fine_tuning/jobs/<job_id>/events      key admin
GET     /v1/models                      key
GET     /v1/models/<path:name>          key
GET     /v1/openapi.json                everybody
POST    /v1/responses                   key
GET     /v1/responses/<rid>             key owned
DELETE  /v1/responses/<rid>             key owned
POST    /v1/responses/<rid>/cancel      key owned
GET     /v1/responses/<rid>/input_items key owned
"""
EVENTS = {
    "connect": "user",
    "disconnect": "user",
    "*": "user",  # any other name: an acknowledgement that says so
    "submit": "user",
    "ask": "user",  # of a conversation of others it is told that there is none: tests/webapp/conversations
    "watch": "owned",
    "unwatch": "user",  # of what the socket itself watches
    "cancel": "owned",
    "received": "user",  # as `unwatch`
}
BODIES = {  # of what is looked up only once the body is right
    "POST /api/messages/<mid>/feedback": {"verdict": "up"},
    "POST /api/arena/battles/<battle_id>/questions": {"number": 1, "question": "And then?"},
    "POST /api/arena/battles/<battle_id>/vote": {"vote": "tie"},
}
VISITORS = ("stranger", "owner", "other", "admin")
CHANGES_THE_SESSION = {"POST /sign-in", "GET /sign-in/provider/back", "POST /sign-out", "POST /account/password"}


def rows() -> dict[str, str]:
    """`METHOD path` → who."""
    found = {}
    for line in ROUTES.strip().splitlines():
        method, path, *who = line.split()
        found[f"{method} {path}"] = " ".join(who)
    return found


@dataclass
class Site:
    """One application with its visitors and what the owner has."""

    app: Flask
    accounts: Accounts
    database: Database
    browsers: dict[str, Visitor]
    keys: dict[str, str] = field(default_factory=dict)
    owned: dict[str, str] = field(default_factory=dict)  # a name in a path → an id of the owner's

    def path(self, rule: str) -> str:
        """The rule with the owner's ids, and with one that nobody has where the owner has none.

        Each call has a conversation and a battle of its own: a row may delete or vote.
        """
        self.owned |= (
            self._conversation() if {"<cid>", "<mid>", "<battle_id>", "<secret>"} & set(rule.split("/")) else {}
        )
        for name in (
            "cid",
            "mid",
            "pid",
            "battle_id",
            "jid",
            "kind",
            "name",
            "upload_id",
            "secret",
            "filename",
            "batch_id",
            "file_id",
            "job_id",
            "rid",
        ):
            for part in (f"<{name}>", f"<path:{name}>"):
                rule = rule.replace(part, self.owned.get(name, "nobody-has-this"))
        assert "<" not in rule, f"{rule}: add the name in it to this list, and an id of the owner's to `owned`"
        return rule

    def _conversation(self) -> dict[str, str]:
        """A conversation of the owner with an answer, and a battle about it."""
        (owner,) = (each.id for each in self.accounts.users.list() if each.name == "owner")
        cid, mid, battle_id = (uuid.uuid4().hex for _ in range(3))
        now: dict[str, Any] = {"created_ms": 1}
        with self.database.write() as session:
            row = ConversationRow(id=cid, owner=owner, title="A title", shared_as=f"s{cid}", updated_ms=1, **now)
            session.add(row)
            session.flush()
            asked = {"conversation_id": cid, **now}
            session.add(MessageRow(id=f"q{mid}", role="user", content="A question?", place=1, **asked))
            session.flush()
            for place, side in enumerate(("", "r"), 2):
                answer = {"parent_id": f"q{mid}", "role": "assistant", "content": "An answer.", "place": place}
                session.add(MessageRow(id=side + mid, model="model", **answer, **asked))
            session.flush()
            models = {"left_model": "model", "right_model": "model"}
            session.add(BattleRow(id=battle_id, owner=owner, left_id=mid, right_id=f"r{mid}", **models, **asked))
        return {"cid": cid, "mid": mid, "battle_id": battle_id, "secret": f"s{cid}"}

    def ask(self, method: str, path: str, who: str, body: object = None, **headers: str) -> TestResponse:
        browser = self.browsers[who]
        page = "/sign-in" if who == "stranger" else "/account"
        told = {"Origin": "http://127.0.0.1:8000", "X-CSRF-Token": browser.token(page), **headers}
        sent = {} if method == "GET" else {"json": body or {}}
        return browser.client.open(path, method=method, base_url="http://127.0.0.1:8000", headers=told, **sent)


@pytest.fixture(scope="module")
def site(redis_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    keys = Keys(f"t{uuid.uuid4().hex[:12]}")
    folder = tmp_path_factory.mktemp("site")
    settings = Settings(
        redis_url=redis_server.url,
        namespace=keys.namespace,
        state_dir=folder,
        accounts="on",
        oidc_issuer="http://127.0.0.1:1",  # nobody answers there; its routes are there all the same
    )
    with connect(redis_server.url, role="test") as redis:
        yield _made(settings, redis, keys, folder)


def _made(settings: Settings, redis: Redis, keys: Keys, folder: Path) -> Site:
    database = Database.of(settings)
    migrate(database)
    app = create_app(settings, database)[0]
    accounts = Accounts(database)
    site = Site(app, accounts, database, {who: Visitor(app.test_client()) for who in VISITORS})
    Registry(redis, keys).announce(WorkerInfo("w", "model", "none", 4, 0, 0.0, 2048, "h", 1, 0.0))
    for who in VISITORS[1:]:
        user = accounts.users.create(who, PASSWORD, role="admin" if who == "admin" else "user")
        assert site.browsers[who].sign_in(who).status_code == 302
        site.keys[who] = ApiKeys(redis, keys).create_own("key", user.id)
    site.owned["file_id"] = _owned_file(site)
    site.owned["filename"] = "favicon.svg"
    return site


def _owned_file(site: Site) -> str:
    made = site.app.test_client().post(
        "/v1/files",
        headers={"Authorization": f"Bearer {site.keys['owner']}"},
        data={"purpose": "batch", "file": (io.BytesIO(b'{"a": 1}\n'), "lines.jsonl")},
    )
    assert made.status_code == 200 and made.json is not None, made.text
    return str(made.json["id"])


def test_every_route_has_a_row_and_every_row_a_route(site: Site) -> None:
    served = {
        f"{method} {rule.rule}"
        for rule in site.app.url_map.iter_rules()
        for method in (rule.methods or ()) - {"HEAD", "OPTIONS"}
    }
    assert served - set(rows()) == set(), "decide who may use these, and write it down above"
    assert set(rows()) - served == set(), "these are not served any more"


def test_every_event_has_a_row(site: Site) -> None:
    assert set(site.app.extensions["socketio"].server.handlers["/"]) == set(EVENTS)


def refused(answer: TestResponse) -> str:
    """How a visitor was refused; empty for one who was served, whatever the route made of the request."""
    if answer.status_code == 401:
        return "sign in"
    if answer.status_code == 302 and answer.location.startswith("/sign-in"):
        return "sign in"
    return {403: "forbidden", 404: "not there"}.get(answer.status_code, "")


EXPECTED: dict[str, dict[str, set[str]]] = {
    "everybody": {who: {""} for who in VISITORS},
    "user": {"stranger": {"sign in"}} | {who: {"", "not there"} for who in VISITORS[1:]},
    "owned": {"stranger": {"sign in"}, "owner": {""}, "other": {"not there"}, "admin": {"not there"}},
    "admin": {"stranger": {"sign in"}, "owner": {"forbidden"}, "other": {"forbidden"}, "admin": {"", "not there"}},
}


@pytest.mark.parametrize("who", VISITORS)
@pytest.mark.parametrize("route", [route for route, row in rows().items() if not row.startswith("key")])
def test_a_route_answers_whom_its_row_says(site: Site, route: str, who: str) -> None:
    method, rule = route.split()
    allowed = EXPECTED[rows()[route]][who]
    if route in CHANGES_THE_SESSION and "" in allowed:
        pytest.skip("it would end the session; tests/webapp/accounts has it")
    answer = site.ask(method, site.path(rule), who, BODIES.get(route))
    assert refused(answer) in allowed, (answer.status_code, answer.text[:200])


@pytest.mark.parametrize("who", VISITORS)
@pytest.mark.parametrize("route", [route for route, row in rows().items() if row.startswith("key")])
def test_the_api_answers_keys_and_no_cookies(site: Site, route: str, who: str) -> None:
    method, rule = route.split()
    path = site.path(rule)
    assert site.ask(method, path, who).status_code == 401
    if who == "stranger":
        assert site.ask(method, path, who, Authorization="Bearer sk-chatserver-guess").status_code == 401
        return
    if (route, who) == ("DELETE /v1/files/<file_id>", "owner"):
        pytest.skip("it would be gone for those after it")
    answer = site.ask(method, path, who, Authorization=f"Bearer {site.keys[who]}")
    if rows()[route] == "key admin" and who != "admin":
        assert answer.status_code == 403 and answer.json is not None
        assert answer.json["error"]["type"] == "permission_error"
        return
    is_others = rows()[route] == "key owned" and (who != "owner" or "nobody-has-this" in path)
    assert (answer.status_code == 404) == (is_others or "nobody-has-this" in path), (
        answer.status_code,
        answer.text[:200],
    )
    assert answer.status_code not in (401, 403)


@pytest.mark.parametrize(
    "route", [route for route, row in rows().items() if row != "everybody" and route[:4] != "GET "]
)
def test_no_write_is_served_without_the_pages_token(site: Site, route: str) -> None:
    if rows()[route].startswith("key"):
        pytest.skip("a key is no cookie: no page of another origin has one")
    method, rule = route.split()
    for token in ("", "guess"):
        assert site.ask(method, site.path(rule), "admin", **{"X-CSRF-Token": token}).status_code == 403
    assert site.ask(method, site.path(rule), "admin", Origin="https://evil.example").status_code == 403
