"""The admin page without a browser: who is answered, what is shown, what an administrator may end, retry or revoke."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from services.accounts.api_keys import ApiKeys
from services.arena.blind import answer_id
from services.chat.dead_letters import DeadLetters
from services.chat.requests import Requests
from services.connection.embedded import EmbeddedServer
from services.database.database import Database
from services.database.schema import migrate
from services.serving.registry import Registry, WorkerInfo
from services.settings import Settings
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message, Priority
from webapp.application import create_app

HERE = "http://127.0.0.1:8000"


class Administrator:
    """What the page's script does, over Flask's test client."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        assert client.get("/api/session", base_url=HERE).status_code == 200

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.client.get(path, base_url=HERE, **more)

    def post(self, path: str, body: object, origin: str = HERE) -> TestResponse:
        return self.client.post(path, base_url=HERE, json=body, headers={"Origin": origin})

    def shown(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json

    def done(self, path: str, **body: object) -> Any:
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        return answer.json


class Installation:
    """A model whose worker is played by this file."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self.keys = Keys(namespace)
        self.requests = Requests(redis, self.keys)
        self.queue = self.requests.queue("m")
        self.registry = Registry(redis, self.keys)
        self.letters = DeadLetters(redis, self.requests)
        worker = WorkerInfo("w1", "m", "none", 4, 1, 12.34, 2048, "box", 1, 0.0, version="0.9", memory_mib=700)
        self.registry.announce(worker)

    def ask(self, rid: str, user: str = "ann", priority: Priority = "interactive") -> None:
        self.requests.submit(ChatRequest(rid, user, "m", (Message("user", "hi"),), priority=priority))

    def give_up(self, rid: str) -> None:
        self.ask(rid)
        entry = self.queue.take("w1", suspects=True)
        assert entry is not None and entry.rid == rid
        self.requests.journal.give_up(rid, "ann", "poison", "")
        self.queue.ack(entry, "poison")


@pytest.fixture
def settings(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path, flower_url="http://flower.example:5555"
    )


@pytest.fixture
def admin(settings: Settings) -> Administrator:
    migrate(Database.of(settings))
    return Administrator(create_app(settings)[0].test_client())


@pytest.fixture
def installation(redis_client: Redis, namespace: str) -> Installation:
    return Installation(redis_client, namespace)


def code_of(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, str(answer.json["error"]["code"])


# -- who is answered -------------------------------------------------------------------------------------------------

READS = ["overview", "people", "groups", "keys", "limits", "storage"]
WRITES = [
    "requests/cancel", "dead-letters/retry", "dead-letters/drop", "users/change", "invitations",
    "invitations/withdraw", "groups/set", "groups/remove", "keys/revoke", "limits/set", "limits/unset",
]  # fmt: skip


@pytest.mark.parametrize("path", READS)
def test_another_machine_sees_nothing(admin: Administrator, path: str) -> None:
    answer = admin.get(f"/api/admin/{path}", environ_overrides={"REMOTE_ADDR": "192.168.1.2"})
    assert code_of(answer) == (403, "forbidden")


@pytest.mark.parametrize("path", WRITES)
def test_a_page_of_another_origin_changes_nothing(admin: Administrator, path: str) -> None:
    answer = admin.post(f"/api/admin/{path}", {"rid": "all", "name": "k"}, origin="https://evil.example")
    assert code_of(answer) == (403, "forbidden")


def test_every_route_of_the_admin_page_is_looked_at_here(settings: Settings) -> None:
    rules = {rule.rule for rule in create_app(settings)[0].url_map.iter_rules() if rule.rule.startswith("/api/admin/")}
    assert rules == {f"/api/admin/{path}" for path in READS + WRITES}


def test_the_page_says_to_another_machine_that_it_is_not_for_it(admin: Administrator) -> None:
    answer = admin.get("/admin", environ_overrides={"REMOTE_ADDR": "192.168.1.2"})
    assert answer.status_code == 403 and "<h1>Not from here</h1>" in answer.text


def test_the_page_links_to_flower_where_its_address_is_set(admin: Administrator, settings: Settings) -> None:
    assert 'href="http://flower.example:5555"' in admin.get("/admin").text
    without = Administrator(create_app(settings.model_copy(update={"flower_url": ""}))[0].test_client())
    assert "Flower" not in without.get("/admin").text


# -- what runs -------------------------------------------------------------------------------------------------------


def test_the_overview_shows_workers_with_version_and_memory(admin: Administrator, installation: Installation) -> None:
    (worker,) = admin.shown("/api/admin/overview")["workers"]
    shown = {name: worker[name] for name in ("wid", "slots", "running", "tokens_per_s", "version", "memory_mib")}
    assert shown == {
        "wid": "w1", "slots": 4, "running": 1, "tokens_per_s": 12.3, "version": "0.9", "memory_mib": 700
    }  # fmt: skip


def test_the_overview_shows_how_many_wait_in_each_class_and_who_asks(
    admin: Administrator, installation: Installation
) -> None:
    installation.ask("r1", "ann")
    installation.ask("r2", "bob", "batch")
    found = admin.shown("/api/admin/overview")
    (model,) = found["models"]
    assert {name: each["number"] for name, each in model["classes"].items()} == {
        "retried": 0, "interactive": 1, "batch": 1
    }  # fmt: skip
    assert {row["rid"]: row["user"] for row in found["requests"]} == {"r1": "ann", "r2": "bob"}


def test_an_answer_in_the_arena_is_listed_without_what_tells_its_model(
    admin: Administrator, installation: Installation
) -> None:
    """An administrator votes, too."""
    rid = answer_id("b1", 0, "left")
    installation.ask(rid, "root")
    installation.ask("r1", "root")
    rows = {row["rid"]: row for row in admin.shown("/api/admin/overview")["requests"]}
    assert (rows["r1"]["model"], rows[rid]["model"], rows[rid]["wid"]) == ("m", "", "")
    assert rows[rid]["user"] == "root"
    assert admin.done("/api/admin/requests/cancel", rid=rid) == {"status": "cancelled"}


def test_an_administrator_ends_anybodys_request(admin: Administrator, installation: Installation) -> None:
    installation.ask("r1", "ann")
    assert admin.done("/api/admin/requests/cancel", rid="r1") == {"status": "cancelled"}
    head = installation.requests.journal.head("r1")
    assert head is not None and head.status == "cancelled" and installation.queue.length() == 0


def test_a_request_that_nobody_knows_is_gone(admin: Administrator) -> None:
    assert code_of(admin.post("/api/admin/requests/cancel", {"rid": "none"})) == (410, "gone")


@pytest.mark.parametrize("body", [{}, {"rid": ""}, {"rid": 1}, {"rid": ["a"]}, [], "r1"])
def test_a_body_without_the_id_is_refused(admin: Administrator, body: object) -> None:
    assert code_of(admin.post("/api/admin/requests/cancel", body)) == (400, "invalid_request")


def test_a_body_that_is_no_json_is_refused_in_the_same_way(admin: Administrator) -> None:
    path, origin = "/api/admin/requests/cancel", {"Origin": HERE}
    broken = admin.client.post(path, base_url=HERE, data="{", content_type="application/json", headers=origin)
    assert code_of(broken) == (400, "invalid_request")


# -- dead letters ----------------------------------------------------------------------------------------------------


def test_a_dead_letter_runs_again_and_is_listed_no_more(admin: Administrator, installation: Installation) -> None:
    installation.give_up("r1")
    assert [row["rid"] for row in admin.shown("/api/admin/overview")["dead"]] == ["r1"]
    (again,) = admin.done("/api/admin/dead-letters/retry", rid="r1")["retried"]
    assert again["rid"] == "r1" and installation.queue.in_flight() == [again["as"]]
    assert admin.shown("/api/admin/overview")["dead"] == []
    assert code_of(admin.post("/api/admin/dead-letters/retry", {"rid": "r1"})) == (400, "invalid_request")


def test_a_dead_letter_that_cannot_be_read_stays_and_the_others_run(
    admin: Administrator, installation: Installation, redis_client: Redis
) -> None:
    installation.give_up("r1")
    strange = {"rid": "r0", "user": "ann", "reason": "protocol", "payload": b"?"}
    redis_client.xadd(installation.keys.dead("m"), strange)  # type: ignore[arg-type]
    done = admin.done("/api/admin/dead-letters/retry", rid="all")
    assert [each["rid"] for each in done["retried"]] == ["r1"] and done["unreadable"] == ["r0"]
    assert [letter.rid for letter in installation.letters.newest(9)] == ["r0"]


def test_dead_letters_are_dropped_for_good(admin: Administrator, installation: Installation) -> None:
    installation.give_up("r1")
    installation.give_up("r2")
    assert admin.done("/api/admin/dead-letters/drop", rid="r1") == {"dropped": ["r1"]}
    assert [letter.rid for letter in installation.letters.newest(9)] == ["r2"]
    assert installation.queue.length() == 0


# -- keys and storage ------------------------------------------------------------------------------------------------


def test_keys_are_listed_without_the_key_and_revoked(admin: Administrator, redis_client: Redis, namespace: str) -> None:
    keys = ApiKeys(redis_client, Keys(namespace))
    secret = keys.create("webui", "ann")
    answer = admin.get("/api/admin/keys")
    assert answer.json is not None and secret not in answer.text
    assert [(key["name"], key["user"], key["ending"]) for key in answer.json["keys"]] == [("webui", "ann", secret[-4:])]
    assert admin.done("/api/admin/keys/revoke", name="webui", user="ann") == {"revoked": "webui"}
    assert keys.user_of(secret) == ""
    again = admin.post("/api/admin/keys/revoke", {"name": "webui", "user": "ann"})
    assert code_of(again) == (400, "invalid_request")


def test_limits_of_a_user_are_set_shown_with_the_usage_and_unset(
    admin: Administrator, installation: Installation
) -> None:
    assert admin.shown("/api/admin/limits")["users"] == []
    admin.done("/api/admin/limits/set", user="ann", tokens_per_day=5_000, in_flight=2)
    installation.ask("r1", "ann")
    found = admin.shown("/api/admin/limits")
    (row,) = found["users"]
    assert (row["user"], row["own"], row["tokens_per_day"], row["requests_in_flight"]) == ("ann", True, 5_000, 1)
    assert row["tokens_reserved"] > 0 and found["default"] == {"tokens_per_day": 0, "in_flight": 0, "weight": 1.0}
    assert admin.done("/api/admin/limits/set", user="ann", weight=2)["limits"] == {
        "tokens_per_day": 5_000, "in_flight": 2, "weight": 2.0
    }  # fmt: skip
    assert admin.done("/api/admin/limits/unset", user="ann") == {"unset": True}
    assert admin.shown("/api/admin/limits")["users"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"user": "ann", "tokens_per_day": -1},
        {"user": "ann", "tokens_per_day": "many"},
        {"user": "ann", "tokens_per_day": 1.5},
        {"user": "ann", "in_flight": True},
        {"user": "ann", "weight": 0},
        {"user": "an n", "weight": 1},
        {"tokens_per_day": 1},
    ],
)
def test_limits_that_make_no_sense_are_refused(admin: Administrator, body: dict[str, object]) -> None:
    assert code_of(admin.post("/api/admin/limits/set", body)) == (400, "invalid_request")
    assert admin.shown("/api/admin/limits")["users"] == []


def test_without_accounts_there_are_no_people_to_change(admin: Administrator) -> None:
    assert admin.shown("/api/admin/people") == {"accounts": False, "users": [], "invitations": []}
    for path, body in (("users/change", {"id": "u"}), ("invitations", {}), ("invitations/withdraw", {"handle": "h"})):
        assert code_of(admin.post(f"/api/admin/{path}", body)) == (404, "not_found")


def test_storage_names_what_takes_the_room(admin: Administrator, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "talk").write_bytes(b"x" * 300_000)
    found = admin.shown("/api/admin/storage")
    assert found["folder"] == str(tmp_path) and 0 < found["free_bytes"] <= found["total_bytes"]
    assert next(row["bytes"] for row in found["entries"] if row["name"] == "uploads") >= 300_000
    assert found["database"]["kind"] == "SQLite" and found["database"]["trouble"] == ""
    assert not [row for row in found["entries"] if row["name"].startswith("chatserver.db")]


def test_storage_is_shown_while_the_database_is_away(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://x@127.0.0.1:1/none?connect_timeout=2"})
    found = Administrator(create_app(away)[0].test_client()).shown("/api/admin/storage")
    assert found["database"]["kind"] == "PostgreSQL" and "cannot be used" in found["database"]["trouble"]
